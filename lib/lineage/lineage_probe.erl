%% @private What `priv/lineage-probe --feed' sees of this node from outside: stalls of its schedulers, and the OS
%% processes of its ports.
%%
%% The probe writes it to `/dev/shm/lineage-stalls-PID' and `/dev/shm/lineage-ospids-PID' (see c_src/probe/feed.h), where
%% PID is this node's OS process as the probe has it: both must be in one pid namespace. A file is read only if it belongs to
%% this node's user, and is believed only while its probe is at work.
-module(lineage_probe).

-include_lib("kernel/include/file.hrl").

-export([stalls/0, orphans/1]).

-export_type([stall/0, os_process/0]).

-type stall() :: #{kind := waited | blocked | stopped | busy, thread := scheduler | dirty_cpu | dirty_io, number := non_neg_integer(),
                   span := {FromNs :: integer(), ToNs :: integer()}, os_pid := non_neg_integer(), by := binary()}.
%% `span' is in Erlang monotonic time. `by': of `waited' the program that ran instead (`os_pid'; both empty: none did), of
%% `blocked' and `busy' the shared library, else the system call.

-type os_process() :: #{os_pid := pos_integer(), program := binary(), age_ms := non_neg_integer(), adopted := boolean(),
                        owner := pid() | undefined, owner_alive := boolean(),
                        initial_call := mfa() | undefined, site := lineage_site:site() | undefined}.

-define(MAGIC, 16#314446454e494c).
-define(FRESH_NS, 2000000000).
-define(AGAIN_MS, 500).   % a port that was just closed, and its process that is about to end
-define(RECENT, 1000).

%% @doc The last stalls of schedulers, of the threshold that the probe was given or longer. None: also when no probe runs.
-spec stalls() -> [stall()].
stalls() ->
    case feed("stalls") of
        {ok, #{head := Head, slots := Slots, offset := Offset}, Rows} ->
            [#{kind => kind(Kind), thread => thread(Thread), number => Number, span => {From + Offset, To + Offset},
               os_pid => By, by => text(What)}
             || <<No:64/native, From:64/native, To:64/native, Kind, Thread, Number:16/native, By:32/native, What:32/binary>> <= Rows,
                No < Head, Head - No =< Slots, Kind >= 1, Kind =< 4, Thread >= 1, Thread =< 3];
        none ->
            []
    end.

kind(Kind) -> element(Kind, {waited, blocked, stopped, busy}).

thread(Thread) -> element(Thread, {scheduler, dirty_cpu, dirty_io}).

%% @doc The OS processes that a port has started and none holds any more, and what they have started: twice in a row, so
%% that one which is about to end is none.
-spec orphans([term()]) -> [os_process()].
orphans(Args) ->
    case unheld(Args) of
        [] ->
            [];
        First ->
            timer:sleep(?AGAIN_MS),
            Pids = maps:from_list([{{Pid, Root}, true} || {Pid, Root, _} <- First]),
            described([Row || {Pid, Root, Row} <- unheld(Args), is_map_key({Pid, Root}, Pids)])
    end.

%% A port whose OS process has ended is still that of what this one has started, as long as it is open.
unheld(Args) ->
    Held = maps:from_list([{Os, true} || Port <- erlang:ports(), {os_pid, Os} <- [erlang:port_info(Port, os_pid)]]),
    case feed("ospids") of
        {ok, #{head := Head}, Rows} ->
            lists:sublist([{Pid, Root, #{os_pid => Pid, program => text(Program), age_ms => Age div 1000000,
                                         adopted => Flags band 1 =:= 1, owner => Owner}}
                           || <<Pid:32/native, Root:32/native, _Unused:32, Flags:32/native, Age:64/native, Owner:64/native,
                                Program:32/binary>> <= binary:part(Rows, 0, min(byte_size(Rows), 64 * Head)),
                              %% 0: an event was lost, and who started it is not known.
                              Root =/= 0, not is_map_key(Root, Held)], Head);
        none ->
            lineage_error:raise({probe_missing, os:getpid()}, Args)
    end.

described(Rows) ->
    Dead = try lineage_report:recent(?RECENT) catch error:{lineage, _} -> [] end,
    [maps:merge(Row, owner(Word, Dead)) || #{owner := Word} = Row <- Rows].

owner(Word, Dead) ->
    Owner = case Word of 0 -> undefined; _ -> lineage_nif:pid(Word) end,
    {Call, Site} = born(Owner, Dead),
    #{owner => Owner, owner_alive => is_pid(Owner) andalso is_process_alive(Owner), initial_call => Call, site => Site}.

born(undefined, _Dead) ->
    {undefined, undefined};
born(Owner, Dead) ->
    case lineage_nif:record(Owner) of
        #{initial_call := Call, site := Site} -> {Call, lineage_site:describe(Site)};
        _ -> hd([{Call, Site} || #{pid := Pid, initial_call := Call, site := Site} <- Dead, Pid =:= Owner] ++ [{undefined, undefined}])
    end.

%% The feed's head and its slots.
feed(What) ->
    Path = "/dev/shm/lineage-" ++ What ++ "-" ++ os:getpid(),
    case ours(Path) andalso file:read_file(Path) of
        {ok, <<?MAGIC:64/native, Head:64/native, Seen:64/native, Slots:32/native, _ProbePid:32, _Dropped:64, _Threshold:64,
               Namespace:64/native, _:64, Rows/binary>>} when Slots > 0 ->
            case {offset(), file:read_link("/proc/self/ns/pid")} of
                {{Now, Offset}, {ok, Link}} when abs(Now - Seen) < ?FRESH_NS ->
                    %% Another node of that number may be in another container.
                    case Link =:= "pid:[" ++ integer_to_list(Namespace) ++ "]" of
                        true -> {ok, #{head => Head, slots => Slots, offset => Offset}, Rows};
                        false -> none
                    end;
                _ ->
                    none
            end;
        _ ->
            none
    end.

%% Anybody may make a file there.
ours(Path) ->
    case {file:read_link_info(Path), file:read_file_info("/proc/self")} of
        {{ok, #file_info{type = regular, uid = Uid}}, {ok, #file_info{uid = Uid}}} -> true;
        _ -> false
    end.

%% The kernel's clock now, and what makes Erlang monotonic time of it.
offset() ->
    Source = erlang:system_info(os_monotonic_time_source),
    case lists:keyfind(clock_id, 1, Source) of
        {clock_id, 'CLOCK_MONOTONIC'} ->
            Now = erlang:convert_time_unit(proplists:get_value(time, Source), native, nanosecond),
            {Now, erlang:monotonic_time(nanosecond) - Now};
        _ ->
            unknown
    end.

text(Bytes) ->
    [Text | _] = binary:split(Bytes, <<0>>),
    << <<(case C of _ when C < 32; C > 126 -> $?; _ -> C end)>> || <<C>> <= Text >>.
