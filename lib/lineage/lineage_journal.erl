%% @private The flight recorder, seen from Erlang: `attach(journal: Dir)'.
%%
%% The driver writes the journal; what it has no words for is told from here, by a process that the session starts: the
%% places of sites, which are read from code, and the names of scopes, as they are opened. See c_src/core/journal.h for
%% the format, and `priv/lineage-journal' for its reader.
-module(lineage_journal).

-behaviour(gen_server).

-export([check/1, open/1, start_link/1, detached/1, scope/2, state/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([option/0, options/0, state/0]).

-type option() :: file:name_all() | #{dir := file:name_all(), max_bytes => pos_integer(), segment_bytes => pos_integer(),
                                      fsync => never | segment | {every, Ms :: pos_integer()}}.

-type options() :: #{dir := binary(), max_bytes := pos_integer(), segment_bytes := pos_integer(),
                     fsync := never | segment | {every, pos_integer()}}.

-type state() :: #{dir := binary(), bytes := non_neg_integer(), segments := non_neg_integer(), events := non_neg_integer(),
                   missing := non_neg_integer(), paused := false | atom()}.
%% `bytes' and `segments' of the directory, earlier runs included; `events' written, and those `missing': rings were full,
%% or nothing could be written. `paused': why nothing can be, an errno.

-define(MAX_BYTES, 268435456).
-define(SEGMENT_BYTES, 16777216).
-define(MIN_SEGMENT_BYTES, 1048576).
-define(MAX_SEGMENT_BYTES, 1073741824).
-define(NEVER, 16#ffffffffffffffff).
-define(MAX_DIR, 3800).           % bytes
-define(RINGS_DIR, "/dev/shm").
-define(LOOK_MS, 500).
-define(NAME_BYTES, 1000).
-define(CHUNK, 50).

%% The operations of the port that are the recorder's.
-define(END, 10).
-define(PLACES, 11).
-define(SCOPES, 12).
-define(SITES, 13).
-define(STATE, 14).

%% @doc The option with its defaults, or what it must be.
-spec check(term()) -> {ok, options()} | {error, string()}.
check(#{dir := Dir} = Given) ->
    Options = maps:merge(#{max_bytes => ?MAX_BYTES, segment_bytes => ?SEGMENT_BYTES, fsync => never}, Given),
    Wrong = [Wanted || {Key, Value} <- lists:sort(maps:to_list(Options)), Wanted <- wrong(Key, Value)],
    case Wrong of
        [] -> bounded(Options#{dir := name(Dir)});
        [Wanted | _] -> {error, Wanted}
    end;
check(Given) when is_map(Given) ->
    {error, "a directory, or a map with one as dir"};
check(Dir) ->
    check(#{dir => Dir}).

bounded(#{max_bytes := Max, segment_bytes := Segment} = Options) when Max >= 3 * Segment -> {ok, Options};
bounded(_) -> {error, "a map whose max_bytes is at least three times its segment_bytes (16 MiB unless told)"}.

wrong(dir, Dir) ->
    case name(Dir) of
        Name when is_binary(Name), byte_size(Name) =< ?MAX_DIR -> [];
        _ -> ["a directory (a string or a binary), or a map with one as dir"]
    end;
wrong(max_bytes, N) when is_integer(N), N >= 3 * ?MIN_SEGMENT_BYTES, N < 1 bsl 62 -> [];
wrong(max_bytes, _) -> ["a map whose max_bytes, if given, is a number of bytes, 3145728 or more"];
wrong(segment_bytes, N) when is_integer(N), N >= ?MIN_SEGMENT_BYTES, N =< ?MAX_SEGMENT_BYTES -> [];
wrong(segment_bytes, _) -> ["a map whose segment_bytes, if given, is a number of bytes, from 1048576 to 1073741824"];
wrong(fsync, never) -> [];
wrong(fsync, segment) -> [];
wrong(fsync, {every, Ms}) when is_integer(Ms), Ms > 0, Ms =< 16#ffffffff -> [];
wrong(fsync, _) -> ["a map whose fsync, if given, is never, segment or {every, Milliseconds}"];
wrong(_Key, _) -> ["a map of dir, max_bytes, segment_bytes and fsync"].

%% An absolute path: the node may change its directory.
name(Dir) when is_atom(Dir) ->
    undefined;
name(Dir) ->
    try unicode:characters_to_binary(filename:absname(filename:flatten(Dir)), unicode, file:native_name_encoding()) of
        Name when is_binary(Name), Dir =/= [], Dir =/= <<>> ->
            case binary:match(Name, <<0>>) of
                nomatch -> Name;
                _ -> undefined
            end;
        _ -> undefined
    catch
        error:_ -> undefined
    end.

%% @doc Begins a journal: what is born from now on is in it. Also says what is to be known of it, and of dead runs.
-spec open(options()) -> {ok, lineage_pump:pump(), [lineage_error:cause()]} | {error, lineage_error:cause()}.
open(#{dir := Dir} = Options) ->
    case lineage_nif:journal(Dir, rings_dir(), node_name(), numbers(Options)) of
        {ok, Ticket, Rings, Dead} ->
            opened(lineage_pump:open(<<Ticket:64/native>>), Dir, Rings, Dead);
        {error, {locked, Holder}} ->
            {error, {journal_locked, Dir, Holder}};
        {error, {What, Errno}} ->
            {error, {journal_failed, Dir, What, Errno}}
    end.

opened({ok, Pump}, Dir, Rings, Dead) ->
    {ok, Pump, [{journal_rings, Rings} || Rings =/= ok] ++
         [{journal_dead, Dir, hex(Run), Node, iso(WallNs)} || {Run, Node, WallNs, _Events, _Missing} <- Dead]};
opened(Error, _Dir, _Rings, _Dead) ->
    lineage_nif:journal_drop(),
    Error.

numbers(#{max_bytes := Max, segment_bytes := Segment, fsync := Fsync}) ->
    {lineage_pump:rings(), lineage_pump:ring_bytes(), Segment, Max, fsync_ns(Fsync),
     list_to_integer(erlang:system_info(otp_release)), erlang:system_info(process_limit)}.

fsync_ns(never) -> ?NEVER;
fsync_ns(segment) -> 0;
fsync_ns({every, Ms}) -> Ms * 1000000.

%% A test has its own, to see what happens without one.
rings_dir() ->
    list_to_binary(application:get_env(lineage, rings_dir, ?RINGS_DIR)).

node_name() ->
    atom_to_binary(node()).

hex(Run) -> list_to_binary(string:lowercase(string:pad(integer_to_list(Run, 16), 16, leading, $0))).

iso(WallNs) -> list_to_binary(calendar:system_time_to_rfc3339(WallNs div 1000000000, [{offset, "Z"}])).

%% @doc The run ends because somebody wants it to, and not with the node: before the pump is closed.
-spec detached(lineage_pump:pump()) -> ok.
detached(Pump) ->
    _ = lineage_pump:control(Pump, ?END, <<>>),
    ok.

%% @doc A scope was opened.
-spec scope(pos_integer(), binary()) -> ok.
scope(Id, Name) ->
    case lineage_session:journal() of
        {Pump, _Dir} -> tell(Pump, ?SCOPES, [{Id, Name}]);
        undefined -> ok
    end.

%% @doc How the journal of this session is doing; `undefined' when it has none.
-spec state() -> state() | undefined.
state() ->
    case lineage_session:journal() of
        {Pump, Dir} -> state(Dir, lineage_pump:control(Pump, ?STATE, <<>>));
        undefined -> undefined
    end.

state(Dir, {ok, <<_Segment:64/native, Bytes:64/native, Segments:64/native, Events:64/native, Missing:64/native, Error/binary>>}) ->
    #{dir => Dir, bytes => Bytes, segments => Segments, events => Events, missing => Missing, paused => paused(Error)};
state(Dir, {error, _}) ->
    %% Somebody has closed the port.
    #{dir => Dir, bytes => 0, segments => 0, events => 0, missing => 0, paused => closed}.

paused(<<>>) -> false;
paused(Errno) -> binary_to_atom(Errno).

tell(Pump, Op, Texts) ->
    Data = [[<<Id:64/native, (byte_size(Text)):32/native>>, Text] || {Id, Long} <- Texts, Text <- [short(Long)]],
    _ = lineage_pump:control(Pump, Op, Data),
    ok.

%% No character is cut in two.
short(Text) when byte_size(Text) =< ?NAME_BYTES -> Text;
short(Text) ->
    case unicode:characters_to_binary(binary:part(Text, 0, ?NAME_BYTES)) of
        {incomplete, Whole, _} -> Whole;
        {error, Whole, _} -> Whole;
        Whole -> Whole
    end.

%% The teller

-record(teller, {pump :: lineage_pump:pump(),
                 segment = none :: none | non_neg_integer()}).   % the last that was told the names

%% @private Tells the places of the sites that the recorder has named, and who is registered by which name: also of those
%% that were there before attach, and anew in each segment.
-spec start_link(lineage_pump:pump()) -> {ok, pid()} | ignore | {error, term()}.
start_link(Pump) ->
    gen_server:start_link(?MODULE, Pump, []).

-spec init(lineage_pump:pump()) -> {ok, #teller{}}.
init(Pump) ->
    self() ! recognise,
    look_again(0),
    {ok, #teller{pump = Pump}}.

-spec handle_call(term(), gen_server:from(), #teller{}) -> {reply, term(), #teller{}}.
handle_call(_Other, _From, Teller) ->
    {reply, {error, badarg}, Teller}.

-spec handle_cast(term(), #teller{}) -> {noreply, #teller{}}.
handle_cast(_Other, Teller) ->
    {noreply, Teller}.

-spec handle_info(term(), #teller{}) -> {noreply, #teller{}} | {noreply, #teller{}, hibernate} | {stop, normal, #teller{}}.
handle_info(look, #teller{pump = Pump} = Teller0) ->
    Teller = names(Teller0),
    case lineage_pump:control(Pump, ?SITES, <<>>) of
        {ok, <<>>} ->
            look_again(?LOOK_MS),
            {noreply, Teller, hibernate};
        {ok, Ids} ->
            places(Pump, [Id || <<Id:32/native>> <= Ids]),
            look_again(0),
            {noreply, Teller};
        {error, _} ->
            {stop, normal, Teller}
    end;
handle_info(recognise, Teller) ->
    %% Hosts and the runtime's own that only their stack tells are marked when a report meets them.
    _ = try lineage_report:orphans(#{}) catch error:{lineage, _} -> [] end,
    {noreply, Teller};
handle_info(_Other, Teller) ->
    {noreply, Teller}.

names(#teller{pump = Pump, segment = Last} = Teller) ->
    case lineage_pump:control(Pump, ?STATE, <<>>) of
        {ok, <<Segment:64/native, _/binary>>} when Segment =/= Last ->
            [lineage_nif:named(Pid, Name) || Name <- registered(), Pid <- [whereis(Name)], is_pid(Pid)],
            Teller#teller{segment = Segment};
        _ ->
            Teller
    end.

look_again(Ms) ->
    erlang:send_after(Ms, self(), look).

%% Reading code may take long: what is known is told on the way.
places(_Pump, []) ->
    ok;
places(Pump, Ids) ->
    {Now, Later} = lists:split(min(?CHUNK, length(Ids)), Ids),
    tell(Pump, ?PLACES, [{Id, Text} || Id <- Now, Text <- place(Id)]),
    places(Pump, Later).

place(Id) ->
    case lineage_nif:site(Id) of
        {Id, _, _} = Site -> [lineage_site:text(lineage_site:describe(Site))];
        _ -> []
    end.
