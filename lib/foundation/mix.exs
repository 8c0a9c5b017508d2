defmodule Foundation.MixProject do
  use Mix.Project

  def project do
    [
      app: :foundation,
      version: "0.1.0",
      description:
        "Registry, config, events, telemetry, supervised work and coordination for a node",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: Mix.env() == :test],
      start_permanent: Mix.env() == :prod,
      deps: deps()
    ]
  end

  def application do
    [
      mod: {Foundation.Application, []},
      extra_applications: [:logger],
      # Started by the coordination, and again when it has died: a permanent application would end the node.
      included_applications: [:mnesia],
      env: [
        supervision: [phase_1: true, phase_2: true, phase_3: true, phase_4: true],
        supervision_switch: Foundation.Monitoring
      ]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # The tests look for what they left behind with Lineage; the application itself needs nothing of it.
  defp deps do
    [{:lineage, path: "../..", only: :test, runtime: false}]
  end
end
