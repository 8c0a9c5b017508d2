defmodule Lineage.SitesTest do
  use Lineage.Case, async: false

  alias Lineage.SiteUser

  @by_closure [:spawned, :with_options, :task, :linked_task, :agent]
  # A task that is awaited may be sent its function after its birth: then its closure is not known.
  @by_call [
    :spawned_by_name,
    :task_by_name,
    :server,
    :linked_server,
    :comprehended,
    :piped,
    :async
  ]

  # A file of the very second of attach is not trusted.
  setup_all do
    %{ctime: changed} = SiteUser |> :code.which() |> File.stat!(time: :posix)
    wait_for(changed)
  end

  defp wait_for(second) do
    if System.os_time(:second) > second do
      :ok
    else
      receive do
      after
        50 -> wait_for(second)
      end
    end
  end

  defp site(pid), do: Lineage.why(pid).site

  defp stop(pids), do: Enum.each(pids, &Process.exit(&1, :kill))

  # In a process of its own: what is linked to it goes with it.
  defp apart(fun) do
    test = self()

    runner =
      spawn(fn ->
        send(test, {:done, fun.()})
        SiteUser.wait()
      end)

    assert_receive {:done, result}, 10_000
    on_exit(fn -> stop([runner]) end)
    result
  end

  defp lines_are_sites(functions) do
    found = apart(fn -> for f <- functions, do: {f, apply(SiteUser, f, [])} end)

    for {function, {line, pid}} <- found do
      assert %{kind: :call, line: ^line, module: SiteUser, function: {^function, 0}} = site(pid),
             "#{function}: #{inspect(site(pid))}"
    end

    stop(for {_f, {_line, pid}} <- found, do: pid)
  end

  describe "with exact sites" do
    @describetag attach: [sites: :exact]

    test "the line of each call is the site" do
      lines_are_sites(@by_closure ++ @by_call)
    end

    test "a tail call is none, and says so" do
      {:ok, pid} = apart(fn -> SiteUser.tail() end)
      assert %{kind: :via, candidate: {file, line}} = site(pid)
      assert Path.basename(file) == "site_user.ex"
      assert line == tail_line()
      stop([pid])
    end

    test "what a supervisor starts has the line of who asked it, by its closure" do
      supervisor = start_supervised!(Task.Supervisor)
      {line, pid} = SiteUser.supervised(supervisor)
      assert %{kind: :call, line: ^line, module: SiteUser} = site(pid)
    end
  end

  describe "with sites of closures" do
    test "functions that are written where they are spawned have their line" do
      lines_are_sites(@by_closure)
    end
  end

  test "Lineage.sites/0 ranks them, and reconcile finds them in the source" do
    {_line, pid} = SiteUser.spawned()
    assert [_ | _] = sites = Lineage.sites()
    assert %{orphans: 1, births: 1} = Enum.find(sites, &(&1.site[:function] == {:spawned, 0}))

    report = Lineage.reconcile(["test/exunit/support/site_user.ex"])
    assert Enum.any?(report.seen, &(&1.finding.function == {:spawned, 0} and &1.sure))
    assert Enum.any?(report.never, &(&1.function == {:agent, 0}))
    assert report.unfound == []
    assert ExUnit.CaptureIO.capture_io(fn -> Lineage.print(report) end) =~ "seen live"
    stop([pid])
  end

  defp tail_line do
    "test/exunit/support/site_user.ex"
    |> File.read!()
    |> String.split("\n")
    |> Enum.find_index(&(&1 =~ "def tail"))
    |> Kernel.+(1)
  end
end
