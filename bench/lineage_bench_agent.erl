%% The agent of the reference node's rows (a MABEAM.Agent): it answers at once, and votes for the first proposal.
-module(lineage_bench_agent).

-export([init/1, handle_request/2]).

-spec init(term()) -> {ok, none}.
init(_Config) ->
    {ok, none}.

-spec handle_request(term(), none) -> {reply, term(), none}.
handle_request({coordination, _Protocol, vote, #{proposals := [Proposal | _]}}, none) ->
    {reply, {vote, Proposal}, none};
handle_request(_Request, none) ->
    {reply, pong, none}.
