%% @doc Runs inside a node under audit: answers a test suite of another node over one socket.
%%
%% `serve/1' is called by the very process that a case is about (what was typed into a shell, a test
%% process, a runner's) and everything that the suite asks for is done in it, so that the node holds no
%% process that a person's node would not hold.
-module(real_audit).

-export([serve/1, serve_under/1]).
-export([orphans/0, lists/0, stray/0, stray/3, end_stray/1, child/0, verdict/1, summary/0]).
-export([churn/1, open_things/1, wait_for_jobs/1, census_is_whole/0]).

%% @doc Connects to the suite and does what it asks until it says `done' (returns) or `stop' (halts).
-spec serve(inet:port_number()) -> ok.
serve(Port) ->
    {ok, Socket} =
        gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {packet, 4}, {active, false}]),
    ok = gen_tcp:send(Socket, term_to_binary({hello, node(), self()})),
    loop(Socket).

%% @doc The same below the process that calls: linked to it, as a helper is.
-spec serve_under(inet:port_number()) -> ok.
serve_under(Port) ->
    Caller = self(),
    Pid = spawn_link(fun() ->
        serve(Port),
        Caller ! {self(), done}
    end),
    receive
        {Pid, done} -> ok
    end.

loop(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Packet} -> act(binary_to_term(Packet), Socket);
        {error, closed} -> halt(1)
    end.

act(stop, _Socket) ->
    halt(0);
act(done, Socket) ->
    gen_tcp:close(Socket);
act({apply, M, F, A}, Socket) ->
    Answer =
        try
            {ok, apply(M, F, A)}
        catch
            Class:Reason:Stack -> {Class, Reason, Stack}
        end,
    ok = gen_tcp:send(Socket, term_to_binary(Answer)),
    loop(Socket).

%% @doc The report, and what each orphan is doing: enough to see from a failed case what it is.
-spec orphans() -> [map()].
orphans() ->
    [Row#{stack => stack(Pid)} || #{pid := Pid} = Row <- lineage:orphans()].

-spec summary() -> map().
summary() ->
    lineage:summary().

-spec verdict(pid()) -> atom().
verdict(Pid) ->
    maps:get(verdict, lineage:why(Pid)).

%% @doc Why each process that the lists know is what it is.
-spec lists() -> [binary()].
lists() ->
    Known = lineage_lists:recognise_many(processes(), 1000),
    lists:usort([Reason || {_, {_Class, Reason}} <- Known]).

%% @doc A process that nobody would stop, so that a case shows that this node would have told of one.
-spec stray() -> pid().
stray() ->
    spawn(fun wait/0).

%% @doc The same, which first applies a function: it may be linked to a service then.
-spec stray(module(), atom(), [term()]) -> {pid(), Result :: term()}.
stray(M, F, A) ->
    Caller = self(),
    Pid = spawn(fun() ->
        Caller ! {self(), apply(M, F, A)},
        wait()
    end),
    receive
        {Pid, Result} -> {Pid, Result}
    end.

-spec end_stray(pid()) -> ok.
end_stray(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

%% @doc A process linked to the one that serves.
-spec child() -> pid().
child() ->
    spawn_link(fun wait/0).

wait() ->
    receive
        stop -> ok
    end.

%% @doc The census and the VM agree about who lives.
-spec census_is_whole() -> boolean().
census_is_whole() ->
    lists:sort(lineage:pids()) =:= lists:sort(processes()).

%% @doc Starts and ends processes of every usual kind below the caller.
-spec churn(pos_integer()) -> ok.
churn(Count) ->
    [churn_once() || _ <- lists:seq(1, Count)],
    ok.

churn_once() ->
    Linked = spawn_link(fun wait/0),
    {Monitored, Monitor} = spawn_monitor(fun() -> ok end),
    ProcLib = proc_lib:spawn_link(fun wait/0),
    {ok, Events} = gen_event:start_link(),
    receive
        {'DOWN', Monitor, process, Monitored, normal} -> ok
    end,
    ok = gen_event:stop(Events),
    [end_stray(Pid) || Pid <- [Linked, ProcLib]],
    ok.

%% @doc Starts OTP's own applications and opens files and sockets of the kinds that have a process of
%% their own. The caller owns them.
-spec open_things(file:filename()) -> ok.
open_things(Dir) ->
    {ok, _} = dbg:tracer(),
    {ok, _} = cover:start(),
    File = fun(Name) -> filename:join(Dir, Name) end,
    {ok, _} = file:open(File("delayed"), [raw, write, delayed_write]),
    {ok, _} = file:open(File("zipped"), [raw, write, compressed]),
    {ok, _} = file:open(File("plain"), [write]),
    {ok, _} = gen_tcp:listen(0, [{inet_backend, socket}, {ip, {127, 0, 0, 1}}]),
    {ok, _} = gen_udp:open(0, [{inet_backend, socket}, {ip, {127, 0, 0, 1}}]),
    {ok, _} = disk_log:open([{name, lineage_log}, {file, File("log")}]),
    {ok, _} = dets:open_file(lineage_table, [{file, File("dets")}]),
    {ok, _} = timer:send_interval(3600000, tick),
    {ok, _} = inet:gethostbyname("localhost"),
    ok = beam_lib:crypto_key_fun(fun(_) -> ok end),
    [{ok, _} = application:ensure_all_started(App) || App <- [inets, ssl, runtime_tools, os_mon]],
    ok.

%% @doc Waits for the end of jobs that are orphans while they run: processes that have a function of
%% `Module' that starts with `Prefix' on their stack, and what they started without a link.
-spec wait_for_jobs([{module(), string()}]) -> non_neg_integer().
wait_for_jobs(Jobs) ->
    Pids = [Pid || Pid <- processes(), Pid =/= self(), is_job(stack(Pid), Jobs)],
    Monitors = [monitor(process, Pid) || Pid <- Pids],
    [
        receive
            {'DOWN', Monitor, process, _, _} -> ok
        end
     || Monitor <- Monitors
    ],
    case Pids of
        [] -> 0;
        _ -> length(Pids) + wait_for_jobs(Jobs)
    end.

is_job(Stack, Jobs) ->
    lists:any(
        fun({M, F, _}) ->
            lists:any(fun({Module, Prefix}) ->
                M =:= Module andalso lists:prefix(Prefix, atom_to_list(F))
            end, Jobs)
        end,
        Stack
    ).

stack(Pid) ->
    case process_info(Pid, current_stacktrace) of
        {current_stacktrace, Stack} -> [{M, F, A} || {M, F, A, _} <- Stack];
        undefined -> []
    end.
