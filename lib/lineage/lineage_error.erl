%% @doc Every sentence that Lineage says to a user who made a mistake, or who must know something.
%%
%% One cause, one sentence, and the sentence says what to do next. A cause is an atom or a tuple whose
%% first element is the tag that `{error, {Tag, Sentence}}' carries.
-module(lineage_error).

-export([tagged/1, raise/2, raise/3, format_error/2, sentence/1, list/1]).

-export_type([cause/0]).

-type cause() :: atom() | tuple().

%% @doc The error that an operation returns: `{error, {Tag, Sentence}}'.
-spec tagged(cause()) -> {error, {atom(), binary()}}.
tagged(Cause) ->
    {error, {tag(Cause), sentence(Cause)}}.

%% @doc Raises `{lineage, Tag}' with the sentence in its error_info, so that a shell prints it.
%% `Args' are the arguments of the function that the user called.
-spec raise(cause(), [term()]) -> no_return().
raise(Cause, Args) ->
    raise(Cause, Args, #{}).

%% @doc The same; a numbered key in `Extra' says what is wrong with that argument.
-spec raise(cause(), [term()], #{pos_integer() => binary()}) -> no_return().
raise(Cause, Args, Extra) ->
    Info = #{module => ?MODULE, cause => #{sentence => sentence(Cause), arguments => Extra}},
    erlang:error({lineage, tag(Cause)}, Args, [{error_info, Info}]).

%% @doc What the shells call to print an error that {@link raise/2} raised.
-spec format_error(term(), [tuple()]) -> #{general | reason | pos_integer() => binary()}.
format_error({lineage, _Tag}, [{_M, _F, _A, Location} | _]) ->
    case proplists:get_value(error_info, Location, #{}) of
        #{cause := #{sentence := Sentence, arguments := Extra}} -> Extra#{general => Sentence};
        _ -> #{}
    end;
format_error(_Reason, _Stack) ->
    #{}.

%% @doc The sentence of a cause, in UTF-8.
-spec sentence(cause()) -> binary().
sentence(Cause) ->
    unicode:characters_to_binary(text(Cause)).

%% @doc Terms as a person lists them: `a, b and c'.
-spec list([term()]) -> iolist().
list([]) -> "none";
list([One]) -> term(One);
list(Many) -> [lists:join(", ", [term(T) || T <- lists:droplast(Many)]), " and ", term(lists:last(Many))].

tag(Cause) when is_atom(Cause) -> Cause;
tag({told, Tag, _Sentence}) -> Tag;
tag(Cause) -> element(1, Cause).

text({not_attached, undefined}) ->
    "Lineage is not attached to this node: call lineage:attach() (Lineage.attach() in Elixir) first.";
text({not_attached, Why}) ->
    ["Lineage is not attached any more, because ", Why, "; call lineage:attach() again if you want it."];
text({attaching, Done, Total}) ->
    f("Lineage is still reading the processes that were here before it (~b of ~b): ask again when "
      "attach has returned.", [Done, Total]);
text({already_attached, Exits, Seconds}) ->
    f("Lineage has been attached to this node for ~b s (exits: ~s), and a node holds one session: go on "
      "with that one, or call lineage:detach() first.", [Seconds, Exits]);
text({already_attached, attaching}) ->
    "Lineage is being attached to this node at this moment, and a node holds one session: wait for "
    "that call to return, or end it with lineage:detach().";
text(detached_meanwhile) ->
    "lineage:detach() was called before attach was done, so nothing is attached: call attach again "
    "when that is over.";
text({nif_missing, Path, Reason}) ->
    f("Lineage's NIF for OTP ~s (erts ~s) could not be loaded from ~ts (~ts): run `make`, `rebar3 compile` "
      "or `mix compile` in Lineage's directory with the erl of this very node first in the PATH, "
      "and attach again.",
      [erlang:system_info(otp_release), erlang:system_info(version), Path, Reason]);
text({driver_missing, Path, Reason}) ->
    f("Lineage's port driver could not be loaded from ~ts (~ts): see that the file there is the one that `make`, `rebar3 "
      "compile` or `mix compile` built for this OTP, and that no other driver is named lineage.", [Path, Reason]);
text({pump_failed, ebusy}) ->
    "The stream of events is being closed at this moment, or another process has opened the driver's pump by itself, and there "
    "is one: try again when that is over.";
text({pump_failed, enomem}) ->
    "There is no memory for the rings that events go through (32 MiB at most): free some memory and try again.";
text({pump_failed, Reason}) ->
    f("The stream of events could not be opened (~0tp): try again, and report this if it comes back.", [Reason]);
text({journal_locked, Dir, Holder}) ->
    [f("Another node records in ~ts", [Dir]), [[" (", Holder, ")"] || Holder =/= <<>>],
     ", and a directory holds the journal of one node: give this one a directory of its own, or detach the other first."];
text({journal_failed, Dir, dir, Errno}) ->
    f("The journal's directory ~ts is not there and cannot be made (~ts): make it, or name one that this user may write in.",
      [Dir, errno(Errno)]);
text({journal_failed, Dir, lock, Errno}) ->
    f("Nothing can be written in the journal's directory ~ts (~ts): see to its permissions and its disk, or name another one.",
      [Dir, errno(Errno)]);
text({journal_failed, Dir, _Memory, Errno}) ->
    f("There is no memory for a journal in ~ts (~ts; its rings take 32 MiB at most): free some memory, or attach without it.",
      [Dir, errno(Errno)]);
text({journal_rings, Errno}) ->
    f("The journal's rings lie in memory, since no file of their size can be had in /dev/shm (~ts): the last events before a "
      "kill -9 or a crash of the VM, those of a fraction of a second, would not survive; make room in /dev/shm and attach again.",
      [errno(Errno)]);
text({journal_dead, Dir, Run, Node, At}) ->
    f("An earlier run in this journal (~ts, run ~ts) ended at ~ts without detach: look at what it was doing with "
      "priv/lineage-journal forest ~ts --run ~ts.", [Node, Run, At, Dir, Run]);
text({journal, paused, Dir, Errno, _Missing}) ->
    f("The journal in ~ts is paused (~ts): the node goes on, what happens meanwhile is counted as a gap, and it is tried again "
      "each second.", [Dir, errno(Errno)]);
text({journal, resumed, Dir, Errno, Missing}) ->
    f("The journal in ~ts goes on, in a new segment (it was paused: ~ts); ~b events are missing in it so far.",
      [Dir, errno(Errno), Missing]);
text({journal_closed, Dir}) ->
    f("Somebody has closed Lineage's port, so the journal in ~ts has ended, and nothing is recorded any more: detach and attach "
      "again.", [Dir]);
text(pid_layout) ->
    f("OTP ~s (erts ~s) numbers its pids in a way that this version of Lineage does not know, and it "
      "does not guess: use a newer Lineage with this OTP.",
      [erlang:system_info(otp_release), erlang:system_info(version)]);
text({enomem, verdict}) ->
    "There is no memory for a verdict (a few bytes for each process, for as long as it takes): free "
    "some memory and ask again.";
text({enomem, Bytes}) ->
    f("There is no memory for the census's index at +P ~b (max_bytes is ~b): raise max_bytes, or start the "
      "node with a smaller +P.", [erlang:system_info(process_limit), Bytes]);
text({probe_missing, OsPid}) ->
    f("The OS processes of ports are seen from outside the node, and no probe runs: as root, start `priv/lineage-probe ospids -p ~s "
      "--feed', and ask again while it runs.", [OsPid]);
text({tracer_held, Holder}) ->
    ["Another tool traces the new processes of this node (", holder(Holder), "), and before OTP 27 a node "
     "has one tracer for all: stop that tool (dbg:stop(), recon_trace:clear()) and attach again."];
text({hook_failed, Reason}) ->
    f("The VM refused the trace flags (~0tp), so nothing is attached: see whether another tool traces "
      "this node, stop it, and attach again.", [Reason]);
text({session_failed, Reason}) ->
    f("Lineage's session failed while it attached (~0tp), and everything was taken back: attach again, "
      "and report this if it comes back.", [Reason]);
text({not_started, Reason}) ->
    f("The application lineage could not be started (~0tp): see that its ebin directory is in the "
      "code path, and attach again.", [Reason]);
text({bad_options, Given}) ->
    f("attach takes a map of options, and was given ~0tP: write lineage:attach(#{exits => suspects}), or "
      "Lineage.attach(exits: :suspects) in Elixir.", [Given, 10]);
text({bad_option, Key, Given, Wanted}) ->
    f("The option ~0tp of attach must be ~ts, and was given ~0tP: correct it and attach again.",
      [Key, Wanted, Given, 10]);
text({bad_option, Key, Known}) ->
    f("attach has no option ~0tP; it has ~ts: correct the name and attach again.", [Key, 10, list(Known)]);
text({bad_fun, Given}) ->
    f("yield takes a function without arguments, and was given ~0tP: write "
      "lineage:yield(fun() -> dbg:tracer(), ... end).", [Given, 10]);
text({bad_count, Function, Given}) ->
    f("~s takes a number of rows, 1 or more, and was given ~0tP.", [Function, Given, 10]);
text({unknown_pid, What}) ->
    f("No live process ~0tP is known here: give a pid, a registered name or a string such as "
      "\"0.123.0\" of a process that lives on this node.", [What, 10]);
text({dead_pid, Pid}) ->
    f("~0tp is dead: lineage:recent(100) names the last dead that had no link.", [Pid]);
text({remote_pid, Pid}) ->
    f("~0tp lives on ~ts, and Lineage answers for its own node only: attach there and ask that node.",
      [Pid, node(Pid)]);
text({bad_argument, Function, Given, Wanted}) ->
    f("~s takes ~ts, and was given ~0tP: correct it and ask again.", [Function, Wanted, Given, 10]);
text({file, Path, Reason}) ->
    f("The file ~0tp cannot be used (~ts): give a name in a directory that this node may read and write.",
      [Path, file:format_error(Reason)]);
text({bad_snapshot, Given}) ->
    f("~0tP is neither a summary nor a snapshot of this version: give what lineage:summary() returned, or the name of "
      "a file that lineage:save/1 wrote.", [Given, 10]);
text({unresolved, What}) ->
    f("~s took longer than a minute and was given up: ask for a part of it, such as lineage:tree(kernel).", [What]);
text({fuse, for, Ms}) ->
    f("its fuse `for` of ~b ms ran out", [Ms]);
text({fuse, max_spawn_rate, Rate, Max}) ->
    f("~b processes were born within one second and its fuse `max_spawn_rate` allows ~b", [Rate, Max]);
text(session_crashed) ->
    "its session crashed (the log of that moment says how)";
text({subscribers_full, Max}) ->
    f("This node's stream has ~b subscribers, which is the most: end one with lineage:unsubscribe/1 (they end with their "
      "processes, too), and subscribe again.", [Max]);
text({subscribe_failed, enomem}) ->
    "There is no memory for the subscription's buffer: give a smaller `buffer`, and subscribe again.";
text({subscribe_failed, again}) ->
    "The place of a subscriber that has ended could not be taken over, for a thread is still at work for it: subscribe again.";
text({subscribe_failed, Reason}) ->
    f("The stream of events refused the subscription (~0tp): subscribe again, and report this if it comes back.", [Reason]);
text({not_owner, Owner}) ->
    f("The subscription belongs to process ~0tp, and only that one is sent its events: subscribe in the process that reads "
      "them.", [Owner]);
text({too_many_modules, Count, Max}) ->
    f("These applications have ~b modules, and a subscription can look for ~b: give fewer applications, or none, and look at "
      "the events' initial_call.", [Count, Max]);
text({unknown_application, App}) ->
    f("No application ~0tp with modules is loaded on this node: correct its name, or call application:load(~0tp) first, and "
      "subscribe again.", [App, App]);
text({coexistence, single}) ->
    "Before OTP 27 a node has one tracer: dbg and recon_trace cannot trace the processes that Lineage "
    "watches, and take its hook over when they trace new ones; wrap them in lineage:yield/1.";
text({coexistence, all}) ->
    "With exits => all every process is watched, so dbg and recon_trace fail (badarg, or 0 matched) on "
    "this OTP for as long as Lineage is attached, unless they run inside lineage:yield/1.";
text({coexistence, sessions}) ->
    "Lineage traces in a session of its own (OTP 27 and later): dbg and recon_trace are not disturbed.";
text({coexistence, {foreign, Count, Holders}}) ->
    [f("~b processes are traced by another tool (", [Count]), lists:join(", ", [holder(H) || H <- Holders]),
     "): their exits are learnt late, by liveness, and what they spawn under set_on_spawn is found by "
     "comparison only."];
text({coexistence, {taken, Holder}}) ->
    ["Lineage's hook on new processes is gone: ", holder(Holder), " holds it now; what is born meanwhile is "
     "found again when that tool stops, and the time is counted in blind_ms."];
text({coexistence, lost_hook}) ->
    "Lineage's hook on new processes was taken away by another tool, and has been set again; the gap is "
    "counted in blind_ms.";
text({coexistence, {missed, Count}}) ->
    f("~b live processes had been born unseen (another tool's set_on_spawn, or its flags); they are "
      "known now, and the time is counted in blind_ms.", [Count]);
text({coexistence, {points, Count}}) ->
    f("~b trace points of supervisors, monitors, overhead or sites => exact had been taken away (code was loaded, or "
      "another tool cleared them) and are set again: scopes, monitors, starts and sites from in between, within the last "
      "second, may not be known.",
      [Count]);
text({coexistence, forgets_points}) ->
    f("On OTP ~s another tool that clears its trace points (dbg:stop()) silently ends those of monitors or "
      "sites => exact too; they are set again each second, so `monitored` may say no for a process that was "
      "monitored within a second of that, and a site may be missing.", [erlang:system_info(otp_release)]);
text({coexistence, {system_monitor, Holder}}) ->
    ["The system monitor of this node is taken (", holder(Holder), "), and before OTP 28 there is one: gc and long schedules "
     "are not known as causes of slow starts."];
text({critical_unknown, MFAs}) ->
    ["No such function is there to be measured as critical: ", lists:join(", ", [f("~0tp:~0tp/~b", [M, F, A]) || {M, F, A} <- MFAs]),
     "; it is looked for again when its module is loaded, so check its module, name and arity."];
text(points_unavailable) ->
    "The VM refused the trace points of supervisors, monitors, overhead or sites => exact, so `monitored` stays "
    "`unknown`, sites are those of closures, no overhead is measured, and what a supervisor starts at a scope's request "
    "is in the supervisor's own scope.";
text(overhead_off) ->
    "This session does not measure overhead: call lineage:detach() first, then lineage:attach(#{overhead => duty}), or "
    "Lineage.attach(overhead: :duty) in Elixir.";
text(exits_unknown) ->
    "Restarts and stops are measured where the exit of every process is known: detach, and attach with exits => all "
    "beside overhead.";
text({unknown_scope, Scope}) ->
    f("There is no scope ~0tP in this session: it was checked already, or its session has ended.", [Scope, 10]);
text({told, _Tag, Sentence}) ->
    Sentence;
text({leaks_need, Missing}) ->
    ["The assertion of leaks needs a session with exits => all, sites => exact and monitors => exact, and the one that "
     "is attached has less (", lists:join(", ", [f("~s => ~s", [K, V]) || {K, V} <- Missing]), "): call "
     "lineage:detach() first, and the assertion attaches by itself, or attach with these options."];
text(Cause) ->
    f("Lineage failed: ~0tp.", [Cause]).

holder(Pid) when is_pid(Pid) ->
    case node(Pid) =:= node() andalso erlang:process_info(Pid, registered_name) of
        {registered_name, Name} -> f("process ~0tp, ~0tp", [Pid, Name]);
        _ -> f("process ~0tp", [Pid])
    end;
holder(Port) when is_port(Port) -> f("port ~0tp", [Port]);
holder(Module) when is_atom(Module) -> f("module ~0tp", [Module]);
holder({Module, _State}) -> f("module ~0tp", [Module]);
holder(Other) -> f("~0tp", [Other]).

errno(Errno) -> file:format_error(Errno).

term(Atom) when is_atom(Atom) -> atom_to_list(Atom);
term(Other) -> f("~0tp", [Other]).

f(Format, Args) -> io_lib:format(Format, Args).
