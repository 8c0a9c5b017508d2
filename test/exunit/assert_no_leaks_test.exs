defmodule Lineage.AssertNoLeaksTest do
  # Of the macro and its options; whole suites are run by leaks_test.exs.
  use ExUnit.Case, async: false
  use Lineage.ExUnit

  import ExUnit.CaptureIO

  setup do
    on_exit(&Lineage.detach/0)
  end

  # Lives until the test has ended.
  defp leak do
    test = self()

    pid =
      spawn(fn ->
        monitor = Process.monitor(test)
        receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
      end)

    {:left, pid}
  end

  test "a clean block returns its value" do
    value =
      assert_no_leaks do
        Task.await(Task.async(fn -> 1 end)) + 1
      end

    assert value == 2
  end

  test "what is left is raised, with the report" do
    error =
      assert_raise Lineage.LeakError, fn ->
        assert_no_leaks within: 0 do
          leak()
        end
      end

    assert %{report: %{leaks: [%{kind: :detached, direct: true, site: site}]}} = error
    assert %{file: file, line: 17, kind: :call} = site
    assert String.ends_with?(file, "assert_no_leaks_test.exs")
    assert Exception.message(error) =~ "test/exunit/assert_no_leaks_test.exs:17"

    assert Exception.message(error) =~
             "1 direct leak in the block at test/exunit/assert_no_leaks_test.exs:"
  end

  test "what the block raises is raised, and its leaks are told of" do
    told =
      capture_io(:stderr, fn ->
        assert_raise KeyError, fn ->
          assert_no_leaks within: 0 do
            Map.fetch!(%{pid: leak()}, :other)
          end
        end

        assert catch_throw(assert_no_leaks(do: throw(:ball))) == :ball
        assert catch_exit(assert_no_leaks(do: exit(:stage))) == :stage
      end)

    assert [_, _] = String.split(told, "1 direct leak in the block at")
  end

  test "what was told once is not told again by the block around it" do
    assert_no_leaks within: 0 do
      assert_raise Lineage.LeakError, fn ->
        assert_no_leaks within: 0 do
          leak()
        end
      end
    end
  end

  test "what is to be ignored, and what is only told of" do
    assert {:left, _} =
             (assert_no_leaks within: 0,
                              ignore: [{:site, "exunit/assert_no_leaks_test.exs:17"}] do
                leak()
              end)

    told =
      capture_io(:stderr, fn ->
        assert_no_leaks within: 0, action: :warn do
          leak()
        end
      end)

    assert told =~ "1 direct leak in the block at"
  end

  test "wrong options are told in a sentence" do
    for {options, sentence} <- [
          {[within: -1], "within takes a number of milliseconds"},
          {[ignore: :all], "ignore takes a list"},
          {[ignore: [1]], "ignore takes a list"},
          {[action: :shout], "Lineage.ExUnit takes the action raise or warn"},
          {[wihtin: 1], "Lineage.ExUnit takes the options within, ignore and action"},
          {%{within: 1}, "Lineage.ExUnit takes a list of the options"}
        ] do
      start = assert_raise ArgumentError, fn -> Lineage.ExUnit.start(options) end
      assert Exception.message(start) =~ sentence

      block = assert_raise ArgumentError, fn -> assert_no_leaks(options, do: 1) end
      assert Exception.message(block) == Exception.message(start)
    end

    assert_raise ArgumentError, ~r/takes a do block/, fn ->
      Code.eval_string("import Lineage.ExUnit; assert_no_leaks(within: 1)")
    end
  end

  test "a session that does less is told of" do
    {:ok, _} = Lineage.attach()

    {reason, stack} =
      try do
        assert_no_leaks(do: 1)
      catch
        :error, reason -> {reason, __STACKTRACE__}
      end

    assert reason == {:lineage, :leaks_need}
    assert Exception.format_banner(:error, reason, stack) =~ "call lineage:detach() first"
  end

  test "a session that serves is used, and stays" do
    {:ok, _} = Lineage.attach(exits: :all, sites: :exact, monitors: :exact)
    %{births: births} = Lineage.summary()
    assert_no_leaks(do: Task.await(Task.async(fn -> 1 end)))
    assert Lineage.summary().births > births
  end
end
