%% @doc Starts real nodes the way a person does, and talks to them.
%%
%% A node is an operating system process of ours, with or without a terminal. Somebody in it calls
%% `real_audit:serve/1' with our port, and does what we ask from then on.
-module(real_node).

-export([start/2, terminal/2, type/2, expect/2, listen/0, port/1, accept/1, call/2, call/3, call/4]).
-export([stop/2, done/1, wait_exit/1, kill/1, ebins/0, erl/0, free_port/0]).

-define(PATIENCE, 60000).

-type node_process() :: port().
-type connection() :: gen_tcp:socket().
-export_type([node_process/0, connection/0]).

%% @doc The directories that a node needs on its path.
-spec ebins() -> [file:filename()].
ebins() ->
    lists:usort([filename:absname(filename:dirname(code:which(M))) || M <- [lineage, ?MODULE]]).

-spec erl() -> file:filename().
erl() ->
    executable("erl").

executable(Name) ->
    case os:find_executable(Name) of
        false -> error({not_installed, Name});
        Path -> Path
    end.

%% @doc Runs a command without a terminal. Options: `args', `env', `cd'.
-spec start(string(), #{args => [string()], env => [{string(), string()}], cd => file:filename()}) ->
    node_process().
start(Command, Options) ->
    open_port(
        {spawn_executable, executable(Command)},
        [
            {args, maps:get(args, Options, [])},
            {env, maps:get(env, Options, [])},
            {cd, maps:get(cd, Options, ".")},
            binary, exit_status, use_stdio, stderr_to_stdout
        ]
    ).

%% @doc Runs a command in a terminal of its own: the VM sees a person.
-spec terminal([string()], #{env => [{string(), string()}], cd => file:filename()}) ->
    node_process().
terminal(Words, Options) ->
    Line = lists:flatten(lists:join(" ", [quote(Word) || Word <- Words])),
    Env = [{"TERM", "xterm"} | maps:get(env, Options, [])],
    start("script", Options#{args => ["-qfec", Line, "/dev/null"], env => Env}).

quote(Word) ->
    "'" ++ string:replace(Word, "'", "'\\''", all) ++ "'".

-spec type(node_process(), iodata()) -> ok.
type(Node, Line) ->
    true = port_command(Node, [Line, "\n"]),
    ok.

%% @doc Waits until a node has printed something.
-spec expect(node_process(), string()) -> ok.
expect(Node, Text) ->
    expect(Node, list_to_binary(Text), <<>>).

expect(Node, Text, Seen) ->
    case binary:match(Seen, Text) of
        nomatch ->
            receive
                {Node, {data, Data}} -> expect(Node, Text, <<Seen/binary, Data/binary>>);
                {Node, {exit_status, Status}} -> error({ended, Status, Seen})
            after ?PATIENCE -> error({never_said, Text, Seen})
            end;
        _ ->
            ok
    end.

-spec listen() -> gen_tcp:socket().
listen() ->
    {ok, Listener} =
        gen_tcp:listen(0, [binary, {packet, 4}, {active, false}, {ip, {127, 0, 0, 1}}]),
    Listener.

-spec port(gen_tcp:socket()) -> inet:port_number().
port(Listener) ->
    {ok, Port} = inet:port(Listener),
    Port.

%% @doc A port that nobody listens to, for a node's distribution: no epmd is started.
-spec free_port() -> inet:port_number().
free_port() ->
    Listener = listen(),
    Port = port(Listener),
    ok = gen_tcp:close(Listener),
    Port.

%% @doc Waits for the process in the node that serves. Returns who it is there.
-spec accept(gen_tcp:socket()) -> {connection(), node(), pid()}.
accept(Listener) ->
    case gen_tcp:accept(Listener, ?PATIENCE) of
        {ok, Socket} ->
            {hello, Node, Pid} = receive_term(Socket),
            {Socket, Node, Pid};
        {error, Reason} ->
            error({nobody_came, Reason, printed()})
    end.

%% What the nodes of this process have printed tells why one did not come.
printed() ->
    receive
        {Node, {data, Data}} when is_port(Node) -> [Data | printed()];
        {Node, {exit_status, Status}} when is_port(Node) -> [{exit_status, Status} | printed()]
    after 0 -> []
    end.

-spec call(connection(), atom()) -> term().
call(Connection, Function) ->
    call(Connection, Function, []).

-spec call(connection(), atom(), [term()]) -> term().
call(Connection, Function, Args) ->
    call(Connection, real_audit, Function, Args).

%% @doc Applies a function in the process that serves.
-spec call(connection(), module(), atom(), [term()]) -> term().
call(Connection, M, F, A) ->
    ok = gen_tcp:send(Connection, term_to_binary({apply, M, F, A})),
    case receive_term(Connection) of
        {ok, Result} -> Result;
        Failure -> error({in_node, {M, F, A}, Failure})
    end.

receive_term(Socket) ->
    case gen_tcp:recv(Socket, 0, ?PATIENCE) of
        {ok, Packet} -> binary_to_term(Packet);
        {error, Reason} -> error({node_gone, Reason, printed()})
    end.

%% @doc The serving process goes on with what it was doing.
-spec done(connection()) -> ok.
done(Connection) ->
    ok = gen_tcp:send(Connection, term_to_binary(done)),
    gen_tcp:close(Connection).

%% @doc Halts the node that the connection leads to, and waits until its process is gone.
-spec stop(connection(), node_process()) -> ok.
stop(Connection, Node) ->
    ok = gen_tcp:send(Connection, term_to_binary(stop)),
    _ = wait_exit(Node),
    gen_tcp:close(Connection).

-spec wait_exit(node_process()) -> {Status :: integer(), Printed :: binary()}.
wait_exit(Node) ->
    wait_exit(Node, <<>>).

wait_exit(Node, Seen) ->
    receive
        {Node, {data, Data}} -> wait_exit(Node, <<Seen/binary, Data/binary>>);
        {Node, {exit_status, Status}} -> {Status, Seen}
    after ?PATIENCE -> error({does_not_end, Seen})
    end.

%% @doc Ends a process that we started, by its id.
-spec kill(node_process()) -> ok.
kill(Node) ->
    case erlang:port_info(Node, os_pid) of
        {os_pid, Pid} ->
            _ = os:cmd("kill " ++ integer_to_list(Pid)),
            _ = wait_exit(Node),
            ok;
        undefined ->
            ok
    end.
