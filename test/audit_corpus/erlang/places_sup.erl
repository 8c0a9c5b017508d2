-module(places_sup).
-behaviour(supervisor).
-export([start_link/0, init/1, add/2, boot/0]).
-define(CHILD(M, F), {M, {M, F, []}, permanent, 5000, worker, [M]}).

start_link() -> supervisor:start_link({local, ?MODULE}, ?MODULE, []).

boot() -> supervisor:start_link(?MODULE, []).                   %=> tethered supervisor:start_link/2

init([]) ->
    Start = {places, worker, []},
    {ok, {#{}, [#{id => a, start => {places, start, []}},
                {b, {places, begin_it, [1]}, permanent, 5000, worker, [places]},
                #{id => d, start => Start},
                helper(places_helped),
                ?CHILD(places_application, run_it)]}}.

%% Its specs are those of the modules that are spoken of here.
helper(Module) -> {Module, {Module, begin_it, []}, permanent, 5000, worker, [Module]}.

add(Sup, Args) ->
    supervisor:start_child(Sup, #{id => e, start => {places, other, [1]}, restart => temporary}),
    supervisor:start_child(Sup, {f, {places, via_list, Args}, temporary, 10, worker, []}).
