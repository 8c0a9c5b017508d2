%% What the figures were measured on, and when: one line that stands before the others.
-module(lineage_bench_about).

-export([run/1]).

%% Writes the line. There is nothing to hold.
-spec run(lineage_bench:options()) -> [].
run(#{small := Small} = Options) ->
    About = #{
        bench => about,
        'when' => list_to_binary(calendar:system_time_to_rfc3339(erlang:system_time(second), [{offset, "Z"}])),
        otp => release(),
        erts => list_to_binary(erlang:system_info(version)),
        elixir => elixir(),
        os => os(),
        cpu => found("/proc/cpuinfo", "^model name\\s*:\\s*(.+)$"),
        memory_kb => number(found("/proc/meminfo", "^MemTotal:\\s*([0-9]+)")),
        schedulers => erlang:system_info(schedulers_online),
        small => Small =:= yes
    },
    io:format("OTP ~s, Elixir ~s, ~s~n~s, ~b schedulers~n", [maps:get(Key, About) || Key <- [otp, elixir, os, cpu, schedulers]]),
    lineage_bench:emit(Options, About),
    [].

%% With its patch, which is not in system_info.
release() ->
    Otp = lineage_bench:otp(),
    case file:read_file(filename:join([code:root_dir(), "releases", Otp, "OTP_VERSION"])) of
        {ok, Text} -> string:trim(Text);
        {error, _} -> Otp
    end.

elixir() ->
    _ = application:load(elixir),
    case application:get_key(elixir, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> none
    end.

os() ->
    {_, Name} = os:type(),
    {Major, Minor, Patch} = os:version(),
    iolist_to_binary(io_lib:format("~s ~b.~b.~b", [Name, Major, Minor, Patch])).

found(File, Pattern) ->
    Text = case file:read_file(File) of {ok, Read} -> Read; {error, _} -> <<>> end,
    case re:run(Text, Pattern, [multiline, {capture, all_but_first, binary}]) of
        {match, [Value]} -> string:trim(Value);
        nomatch -> <<"unknown">>
    end.

number(Text) ->
    try binary_to_integer(Text)
    catch
        error:badarg -> 0
    end.
