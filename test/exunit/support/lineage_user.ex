defmodule Lineage.User do
  @moduledoc """
  What a user does outside of this node: runs iex, erl, mix and rebar3, on projects of their own that
  depend on this one.
  """

  @root Path.expand("../../..", __DIR__)
  @timeout_ms 240_000

  @doc "The directory of Lineage itself."
  def root, do: @root

  @doc "A new empty directory that is gone after the test."
  def tmp_dir(name) do
    dir = Path.join(System.tmp_dir!(), "lineage-#{name}-#{System.pid()}-#{unique()}")
    File.mkdir_p!(dir)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(dir) end)
    dir
  end

  @doc "Writes `files`, a map of relative paths to contents, below `dir`."
  def write(dir, files) do
    for {path, content} <- files do
      file = Path.join(dir, path)
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, content)
    end

    dir
  end

  @doc "Runs `command` in `dir` as a person would, with nothing of this mix run in its environment."
  def run(dir, command, arguments, env \\ []) do
    foreign =
      for {name, _} <- System.get_env(),
          String.starts_with?(name, ["MIX_", "REBAR_"]),
          do: {name, nil}

    # Without a standard input: a question to the user must fail, not wait.
    script = ~s(exec "$@" </dev/null)

    System.cmd("sh", ["-c", script, "sh", command | arguments],
      cd: dir,
      env: foreign ++ [{"ERL_LIBS", nil}, {"ERL_FLAGS", nil}, {"ERL_AFLAGS", nil}] ++ env,
      stderr_to_stdout: true
    )
  end

  @doc """
  Types `lines` into an iex that has Lineage on its path, and returns all that it printed.

  With `tty: true` it runs in a terminal of 80 columns, by script(1); else its input is a pipe.
  """
  def iex(lines, options \\ []) do
    input = Enum.map_join(lines ++ ["System.halt(0)"], "", &(&1 <> "\n"))
    shell = "iex -pa #{inspect(to_string(:code.lib_dir(:lineage)) <> "/ebin")}"

    {program, arguments} =
      if options[:tty] do
        {"script", ["-qec", "stty cols 80 rows 24; exec #{shell}", "/dev/null"]}
      else
        {"sh", ["-c", "exec #{shell} 2>&1"]}
      end

    port =
      Port.open({:spawn_executable, System.find_executable(program)}, [
        :binary,
        :exit_status,
        args: arguments,
        env: [{~c"TERM", ~c"xterm"}, {~c"ERL_AFLAGS", false}]
      ])

    # What is typed before its line editor has the terminal is thrown away.
    typed = if options[:tty], do: collect(port, "", "iex(1)>"), else: ""
    Port.command(port, input)
    collect(port, typed, :end)
  end

  defp collect(port, output, until) do
    if is_binary(until) and String.contains?(output, until) do
      output
    else
      receive do
        {^port, {:data, data}} -> collect(port, output <> data, until)
        {^port, {:exit_status, _status}} -> output
      after
        @timeout_ms ->
          {:os_pid, pid} = Port.info(port, :os_pid)
          System.cmd("kill", ["-KILL", "#{pid}"])
          raise "iex did not come to its end; it printed:\n" <> output
      end
    end
  end

  defp unique, do: System.unique_integer([:positive])
end
