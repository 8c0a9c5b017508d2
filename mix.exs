defmodule Mix.Tasks.Compile.LineageNif do
  @moduledoc false
  # The one native build is c_src/Makefile; rebar3 calls it by a pre hook, mix by this module.
  # It lives in mix.exs because a compiler must exist before the project's own code is compiled.

  use Mix.Task.Compiler

  @impl true
  def run(_args) do
    case make([]) do
      {output, 0} ->
        if built?(output), do: {:ok, []}, else: {:noop, []}

      {output, status} ->
        Mix.shell().error(output)
        {:error, [diagnostic(output, status)]}
    end
  end

  @impl true
  def clean do
    make(["clean"])
    :ok
  end

  defp make(targets) do
    case System.find_executable(System.get_env("MAKE") || "make") do
      nil ->
        {"make was not found: install make and a C compiler, then run mix compile again\n", 127}

      program ->
        # The headers of the very VM that runs this build, whatever `erl` is first on the PATH.
        System.cmd(program, ["--no-print-directory", "-C", Path.join(__DIR__, "c_src") | targets],
          stderr_to_stdout: true,
          env: [{"ERTS_INCLUDE_DIR", erts_include_dir()}]
        )
    end
  end

  defp erts_include_dir do
    given = System.get_env("ERTS_INCLUDE_DIR")

    if given in [nil, ""] do
      version = :erlang.system_info(:version)
      Path.join([:code.root_dir(), "erts-#{version}", "include"])
    else
      given
    end
  end

  defp built?(output),
    do: not (output =~ "Nothing to be done" or output =~ "is up to date" or output == "")

  defp diagnostic(output, status) do
    %Mix.Task.Compiler.Diagnostic{
      file: Path.join(__DIR__, "c_src/Makefile"),
      severity: :error,
      message: "make -C c_src exited with #{status}:\n" <> output,
      position: 0,
      compiler_name: "lineage_nif"
    }
  end
end

defmodule Lineage.MixProject do
  use Mix.Project

  # What an OTP application is called, which version it has and what starts it is said once, in
  # lib/lineage.app.src, which rebar3 reads too.
  @app_src Path.join(__DIR__, "lib/lineage.app.src")

  def project do
    [
      app: :lineage,
      version: to_string(app_src(:vsn)),
      description: to_string(app_src(:description)),
      elixir: "~> 1.14",
      compilers: [:lineage_nif] ++ Mix.compilers(),
      erlc_paths: ["lib/lineage"],
      erlc_options: erlc_options(Mix.env()),
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: Mix.env() == :test],
      test_paths: ["test/exunit"],
      deps: reference_node()
    ]
  end

  # What Lineage was made for, and what its demo and its tests run. They need nothing of Lineage, and no user
  # of Lineage gets them: a dependency is built for :prod.
  defp reference_node do
    [
      {:foundation, path: "lib/foundation", only: [:dev, :test], runtime: false},
      {:mabeam, path: "lib/mabeam", only: [:dev, :test], runtime: false}
    ]
  end

  def application do
    [mod: app_src(:mod), registered: app_src(:registered)]
  end

  defp elixirc_paths(:test),
    do: ["lib/lineage/elixir", "test/exunit/support", "lib/foundation/test/support"]

  defp elixirc_paths(_env), do: ["lib/lineage/elixir"]

  # Warnings fail our own tests; they must not fail the build of a project that depends on this one.
  defp erlc_options(:test), do: [:debug_info, :warnings_as_errors]
  defp erlc_options(_env), do: [:debug_info]

  defp app_src(key) do
    {:ok, [{:application, :lineage, properties}]} = :file.consult(@app_src)
    Keyword.fetch!(properties, key)
  end
end
