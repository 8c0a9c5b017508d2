%% @doc ejabberd from Debian's package, run by us on loopback with a configuration and a spool of its
%% own, and XMPP clients for it.
-module(real_ejabberd).

-export([with/3, boot/1, leave/1, load/1, finished/1]).

-define(PATIENCE, 20000).

-type client() :: gen_tcp:socket().
-type clients() :: fun((pos_integer()) -> [client()]).
-type load() :: {pid(), reference()}.
-export_type([client/0, clients/0, load/0]).

%% @doc Starts a node that has ejabberd on its path and not running, and stops it afterwards. The
%% function is given the connection to it, and what makes so many clients.
-spec with([{atom(), term()}], atom(), fun((gen_tcp:socket(), clients()) -> term())) -> ok.
with(Config, Name, Fun) ->
    Libs = libs(),
    Dir = filename:join([proplists:get_value(priv_dir, Config), "ejabberd", atom_to_list(Name)]),
    Spool = filename:join(Dir, "spool"),
    ok = filelib:ensure_dir(filename:join(Spool, "x")),
    Port = real_node:free_port(),
    Yml = filename:join(Dir, "ejabberd.yml"),
    ok = file:write_file(Yml, yml(Port)),
    Listener = real_node:listen(),
    Serve = io_lib:format("real_audit:serve(~b)", [real_node:port(Listener)]),
    Node = real_node:start("erl", #{
        args =>
            ["-noshell", "+P", "250000", "-mnesia", "dir", "\"" ++ Spool ++ "\""] ++
                lists:append([["-pa", Ebin] || Ebin <- real_node:ebins()]) ++
                ["-eval", lists:flatten(Serve)],
        cd => Dir,
        env => [
            {"EJABBERD_CONFIG_PATH", Yml},
            {"EJABBERD_LOG_PATH", filename:join(Dir, "ejabberd.log")},
            {"ERL_LIBS", Libs}
        ]
    }),
    {Connection, _, _} = real_node:accept(Listener),
    Fun(Connection, fun(Count) -> [client(Port) || _ <- lists:seq(1, Count)] end),
    real_node:stop(Connection, Node).

%% Where the package keeps its libraries.
libs() ->
    case filelib:wildcard("/usr/lib/*/ejabberd-*/ebin/ejabberd.app") of
        [App | _] -> filename:dirname(filename:dirname(filename:dirname(App)));
        [] -> install()
    end.

install() ->
    Said = os:cmd("cd '" ++ root() ++ "' && test/support/packages.sh test 2>&1"),
    case filelib:wildcard("/usr/lib/*/ejabberd-*/ebin/ejabberd.app") of
        [_ | _] -> libs();
        [] -> error({"ejabberd is needed: apt-get install ejabberd", Said})
    end.

root() ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    filename:dirname(filename:dirname(Source)).

yml(Port) ->
    [
        "loglevel: warning\n"
        "hosts: [\"localhost\"]\n"
        "listen:\n"
        "  - {port: ", integer_to_list(Port), ", ip: \"127.0.0.1\", module: ejabberd_c2s}\n"
        "auth_method: [anonymous]\n"
        "anonymous_protocol: sasl_anon\n"
        "allow_multiple_connections: true\n"
        "modules:\n"
        "  mod_disco: {}\n"
        "  mod_mam: {}\n"
        "  mod_muc: {}\n"
        "  mod_ping: {}\n"
        "  mod_pubsub: {}\n"
        "  mod_roster: {}\n"
        "  mod_stream_mgmt: {}\n"
    ].

%% @doc Starts ejabberd in the node and waits until it serves.
-spec boot(gen_tcp:socket()) -> ok.
boot(Connection) ->
    {ok, _} = real_node:call(Connection, application, ensure_all_started, [ejabberd]),
    ok.

%% A client with a session, present, in a room. Each answer is awaited.
client(Port) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Steps = [
        {stream(), "</stream:features>"},
        {"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", "<success"},
        {stream(), "</stream:features>"},
        {"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "id='bind'"},
        {"<iq type='set' id='open'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
            "id='open'"},
        {"<presence/><iq type='get' id='list'><query xmlns='jabber:iq:roster'/></iq>", "id='list'"},
        {room(), "id='join'"},
        {"<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", "id='ping'"}
    ],
    [
        begin
            ok = gen_tcp:send(Socket, Say),
            ok = await(Socket, list_to_binary(Answer), <<>>)
        end
     || {Say, Answer} <- Steps
    ],
    Socket.

stream() ->
    "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>".

%% A room of its own: a shared one ends with its last guest, and ejabberd loses who joins just then.
room() ->
    Nick = integer_to_list(erlang:unique_integer([positive])),
    ["<presence id='join' to='room", Nick, "@conference.localhost/", Nick,
        "'><x xmlns='http://jabber.org/protocol/muc'/></presence>"].

await(Socket, Answer, Seen) ->
    case binary:match(Seen, Answer) of
        nomatch ->
            case gen_tcp:recv(Socket, 0, ?PATIENCE) of
                {ok, Data} -> await(Socket, Answer, <<Seen/binary, Data/binary>>);
                {error, Reason} -> {error, {no_answer, Answer, Reason, Seen}}
            end;
        _ ->
            ok
    end.

%% @doc Half of them say goodbye, the others just go.
-spec leave([client()]) -> ok.
leave(Clients) ->
    [leave(Client, N rem 2) || {Client, N} <- lists:zip(Clients, lists:seq(1, length(Clients)))],
    ok.

leave(Client, 0) ->
    ok = gen_tcp:send(Client, "</stream:stream>"),
    leave(Client, 1);
leave(Client, 1) ->
    ok = gen_tcp:close(Client).

%% @doc 10 rounds of 10 clients that come and go, while the caller does something else.
-spec load(clients()) -> load().
load(Clients) ->
    spawn_monitor(fun() -> [leave(Clients(10)) || _ <- lists:seq(1, 10)] end).

-spec finished(load()) -> boolean().
finished({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, normal} -> true;
        {'DOWN', Monitor, process, Pid, Reason} -> error({load, Reason})
    after 0 -> false
    end.
