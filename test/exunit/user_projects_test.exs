defmodule Lineage.UserProjectsTest do
  # Lineage as a dependency of projects that a user writes: no hex, no plugin, no step by hand.
  use ExUnit.Case, async: false

  import Lineage.User

  @moduletag timeout: 300_000

  @mix_files %{
    "lib/user.ex" => """
    defmodule User do
      def leak(parent) do
        Task.start(fn ->
          send(parent, :up)
          Process.sleep(:infinity)
        end)
      end
    end
    """,
    "test/test_helper.exs" => "ExUnit.start()\n",
    "test/user_test.exs" => """
    defmodule UserTest do
      use ExUnit.Case

      test "a leak is found, and nothing else" do
        {:ok, info} = Lineage.attach()
        assert is_map(info)
        assert Lineage.orphans() == []
        {:ok, pid} = User.leak(self())
        assert_receive :up
        assert [%{pid: ^pid, kind: :detached}] = Lineage.orphans()
        assert Lineage.detach() == :ok
      end
    end
    """
  }

  @rebar_files %{
    "src/user.app.src" => """
    {application, user, [{description, "A user"}, {vsn, "1"}, {registered, []}, {applications, [kernel, stdlib, lineage]}]}.
    """,
    "src/user_leak.erl" => """
    -module(user_leak).
    -export([leak/1]).
    leak(Parent) -> spawn(fun() -> Parent ! up, receive stop -> ok end end).
    """,
    "test/user_tests.erl" => ~S"""
    -module(user_tests).
    -include_lib("eunit/include/eunit.hrl").

    leak_test() ->
        {ok, Info} = lineage:attach(),
        ?assert(is_map(Info)),
        %% rebar3 leaves servers and workers of its own behind, which are orphans too.
        Before = lineage:orphans(),
        ?assertEqual([], [O || #{app := App} = O <- Before, App =/= rebar]),
        Pid = user_leak:leak(self()),
        receive up -> ok end,
        ?assertMatch([#{pid := Pid, kind := detached}],
                     [O || O <- lineage:orphans(), not lists:member(pid_of(O), [pid_of(B) || B <- Before])]),
        ?assertEqual(ok, lineage:detach()).

    pid_of(#{pid := Pid}) -> Pid.
    """
  }

  test "a mix project takes it as a path dependency" do
    dir =
      tmp_dir("mix")
      |> write(@mix_files)
      |> write(%{"mix.exs" => mix_exs("path: #{inspect(root())}")})

    {output, status} = run(dir, "mix", ["test"])
    assert {status, output =~ ~r/1 test, 0 failures|Result: 1 passed/} == {0, true}, output
  end

  test "a mix project takes it as a git dependency" do
    dir = tmp_dir("mix-git") |> write(@mix_files)
    write(dir, %{"mix.exs" => mix_exs("git: #{inspect(repository())}")})
    {output, status} = run(dir, "mix", ["deps.get"])
    assert status == 0, output
    {output, status} = run(dir, "mix", ["test"])
    assert {status, output =~ ~r/1 test, 0 failures|Result: 1 passed/} == {0, true}, output
  end

  test "a rebar3 project takes it from _checkouts" do
    dir =
      tmp_dir("rebar3")
      |> write(@rebar_files)
      |> write(%{"rebar.config" => "{deps, [lineage]}.\n"})

    File.mkdir_p!(Path.join(dir, "_checkouts"))
    File.ln_s!(root(), Path.join(dir, "_checkouts/lineage"))
    {output, status} = run(dir, "rebar3", ["eunit"])
    assert {status, output =~ "1 tests, 0 failures"} == {0, true}, output
  end

  test "a rebar3 project takes it as a git dependency" do
    config = ~s({deps, [{lineage, {git, "file://#{repository()}", {branch, "main"}}}]}.\n)
    dir = tmp_dir("rebar3-git") |> write(@rebar_files) |> write(%{"rebar.config" => config})
    {output, status} = run(dir, "rebar3", ["eunit"])
    assert {status, output =~ "1 tests, 0 failures"} == {0, true}, output
  end

  defp mix_exs(source) do
    """
    defmodule User.MixProject do
      use Mix.Project

      def project do
        [app: :user, version: "1.0.0", elixir: "~> 1.14", deps: [{:lineage, #{source}}]]
      end

      def application, do: []
    end
    """
  end

  # What a user clones: the files of this project, in a repository of their own, for the tree that runs
  # these tests may have no repository, or changes that are not committed.
  defp repository do
    dir = tmp_dir("repository")

    for path <- ["mix.exs", "rebar.config", "c_src", "lib"] do
      File.cp_r!(Path.join(root(), path), Path.join(dir, path))
    end

    write(dir, %{"priv/.gitkeep" => ""})
    who = ["-c", "user.name=user", "-c", "user.email=user@localhost"]

    for arguments <- [
          ["init", "-q"],
          ["checkout", "-q", "-b", "main"],
          ["add", "."],
          who ++ ["commit", "-q", "-m", "all"]
        ] do
      {output, status} = run(dir, "git", arguments)
      assert status == 0, output
    end

    dir
  end
end
