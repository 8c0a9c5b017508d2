%% @private The port driver, and its one pump: the port that owns the rings between the hook and those who read events.
%%
%% The session owns the port. Closing it flushes: what is in the rings is handed out as far as there is credit, and
%% recorded; only then the port is gone, and says so to its owner.
-module(lineage_pump).

-export([load/0, open/0, open/1, close/1, settle/0, counts/1, control/3, gone/1, rings/0, ring_bytes/0]).

-export_type([pump/0]).

-type pump() :: port().

-define(DRIVER, "lineage").
-define(PUMP, "lineage pump").
-define(OPEN, 1).
-define(COUNTS, 2).
-define(RING_BYTES, 33554432).   % of all rings together, at most
-define(MAX_RINGS, 246).         % one more, the shared one, and the smallest that there are fit into that
-define(FLUSH_MS, 10000).        % a disk that does not answer holds nobody for longer
-define(KILL_MS, 500).
-define(SETTLE_MS, 10).

%% @doc Loads the driver, which is in the NIF's file. Who calls keeps it loaded for as long as it lives, and after that its ports
%% do: they are not killed with the session that crashes, but closed as they would be.
-spec load() -> ok | {error, lineage_error:cause()}.
load() ->
    Dir = lineage_nif:dir(),
    case erl_ddll:load(Dir, ?DRIVER) of
        ok -> ok;
        {error, Reason} -> {error, {driver_missing, filename:join(Dir, ?DRIVER), erl_ddll:format_error(Reason)}}
    end.

%% @doc A pump whose rings lie in memory.
-spec open() -> {ok, pump()} | {error, lineage_error:cause()}.
open() ->
    open(<<>>).

%% @doc A pump that records, as `Journal' says in lineage_journal's words.
-spec open(binary()) -> {ok, pump()} | {error, lineage_error:cause()}.
open(Journal) ->
    case load() of
        ok -> start(<<(rings()):32/native, (ring_bytes()):64/native, Journal/binary>>);
        Error -> Error
    end.

start(Wish) ->
    try open_port({spawn_driver, ?PUMP}, [binary]) of
        Pump -> started(Pump, control(Pump, ?OPEN, Wish))
    catch
        error:Reason -> {error, {pump_failed, Reason}}
    end.

started(Pump, {ok, _}) ->
    {ok, Pump};
started(Pump, {error, Reason}) ->
    close(Pump),
    {error, {pump_failed, Reason}}.

%% @doc How many rings: whatever traces gets one of its own; births and exits happen on schedulers, sweeps on dirty ones.
-spec rings() -> pos_integer().
rings() ->
    Threads = erlang:system_info(schedulers) + erlang:system_info(dirty_cpu_schedulers),
    min(Threads, ?MAX_RINGS).

%% @doc What all of them take, at most.
-spec ring_bytes() -> pos_integer().
ring_bytes() ->
    ?RING_BYTES.

%% @doc Closes the pump, and returns when it is gone: nothing reads the census any more.
-spec close(pump() | undefined) -> ok.
close(undefined) ->
    ok;
close(Pump) ->
    try port_close(Pump) catch error:badarg -> closing end,
    gone(Pump).

%% @doc Waits for a pump that is being closed, or was killed. One whose disk does not answer is taken away. For its owner.
-spec gone(pump()) -> ok.
gone(Pump) ->
    receive
        {Pump, flushed} -> ok
    after ?FLUSH_MS ->
        exit(Pump, kill),
        receive {Pump, flushed} -> ok after ?KILL_MS -> ok end
    end,
    receive {'EXIT', Pump, _} -> ok after 0 -> ok end.

%% @doc Waits until a pump that another process owned, which has died, is gone.
-spec settle() -> ok.
settle() ->
    settle(?FLUSH_MS div ?SETTLE_MS).

settle(0) ->
    ok;
settle(Tries) ->
    case load() of
        ok ->
            try open_port({spawn_driver, ?PUMP}, []) of
                Pump -> close(Pump)
            catch
                error:ebusy ->
                    %% It belongs to nobody who could be told: the port only says that it is still there.
                    receive after ?SETTLE_MS -> settle(Tries - 1) end;
                error:_ ->
                    ok
            end;
        _ ->
            ok
    end.

-spec counts(pump()) -> #{events := non_neg_integer(), lost := non_neg_integer(), subscribers := non_neg_integer()} | closed.
counts(Pump) ->
    case control(Pump, ?COUNTS, <<>>) of
        {ok, <<Events:64/native, Lost:64/native, Subscribers:32/native, _/binary>>} ->
            #{events => Events, lost => Lost, subscribers => Subscribers};
        _ ->
            closed
    end.

%% @doc Asks the port; its error is a name, as an atom where there is such a one.
-spec control(pump(), non_neg_integer(), iodata()) -> {ok, binary()} | {error, atom() | binary()}.
control(Pump, Op, Data) ->
    try port_control(Pump, Op, Data) of
        <<0, Answer/binary>> -> {ok, Answer};
        <<1, Name/binary>> -> {error, name(Name)}
    catch
        error:badarg -> {error, closed}
    end.

name(Name) ->
    try binary_to_existing_atom(Name) catch error:badarg -> Name end.
