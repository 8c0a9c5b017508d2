%% @private Holds the session. The session is permanent: idle while nothing is attached, and idle
%% again after a crash, so that a crash never leaves a node half attached.
-module(lineage_sup).

-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, Reason} -> {error, Reason}
    end.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    %% Clearing the flags of 1,000,000 processes takes seconds; a shutdown waits for that.
    Session = #{id => lineage_session,
                start => {lineage_session, start_link, []},
                restart => permanent,
                shutdown => 30000},
    {ok, {#{strategy => one_for_one, intensity => 3, period => 10}, [Session]}}.
