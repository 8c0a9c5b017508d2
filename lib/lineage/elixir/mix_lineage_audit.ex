defmodule Mix.Tasks.Lineage.Audit do
  @shortdoc "Finds calls that create a process which no supervisor starts"

  @moduledoc """
  Finds, in Erlang and Elixir sources and in beams, each call that creates a process which no
  supervisor starts.

      $ mix lineage.audit
      $ mix lineage.audit lib test/support
      $ mix lineage.audit --format compact --ignore .lineage-audit

  Without paths it reads the sources of this project, of each application of an umbrella: what
  `:elixirc_paths` and `:erlc_paths` name. Nothing is compiled for it.

  Each finding has a severity: `unlinked` (spawned without a link: nobody stops it), `tethered`
  (linked, but no supervisor starts it: nobody restarts it) or `deferred` (runs later, or on another
  node).

  ## Options

    * `--format table` - by file, for people (the default); `compact` writes
      `file:line: severity: text`, one a line, and `json` one object
    * `--ignore FILE` - accepted findings, one a line: `path-glob[:line]  [call]  # reason`
    * `--help` - all of it in short

  ## Exit status

  0 when there is none, 1 with findings, 2 when something could not be read; it is named, and the
  rest is done.
  """

  use Mix.Task

  @impl true
  def run(arguments) do
    # What is no option is a path; the options themselves are judged where they are used.
    {options, paths, _unknown} =
      OptionParser.parse(arguments, strict: [format: :string, ignore: :string, help: :boolean])

    paths = if paths == [] and not Keyword.has_key?(options, :help), do: own_paths(), else: []
    command = Enum.map(["audit" | arguments] ++ paths, &String.to_charlist/1)

    case :lineage_cli.run(command) do
      0 -> :ok
      status -> exit({:shutdown, status})
    end
  end

  defp own_paths do
    case Mix.Project.apps_paths() do
      nil -> source_paths()
      apps -> for {app, path} <- Enum.sort(apps), own <- app_paths(app, path), do: own
    end
  end

  defp app_paths(app, path) do
    Mix.Project.in_project(app, path, fn _module ->
      for own <- source_paths(), do: Path.join(path, own)
    end)
  end

  defp source_paths do
    config = Mix.Project.config()

    (config[:elixirc_paths] ++ config[:erlc_paths])
    |> Enum.uniq()
    |> Enum.filter(&File.dir?/1)
  end
end
