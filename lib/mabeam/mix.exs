defmodule MABEAM.MixProject do
  use Mix.Project

  def project do
    [
      app: :mabeam,
      version: "0.1.0",
      description: "Agents, their coordination, communication and load balancing, on Foundation",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      elixirc_options: [warnings_as_errors: Mix.env() == :test],
      start_permanent: Mix.env() == :prod,
      deps: deps()
    ]
  end

  def application do
    [
      mod: {MABEAM.Application, []},
      extra_applications: [:logger],
      env: [supervision_switch: MABEAM.Agent]
    ]
  end

  defp elixirc_paths(:test),
    do: ["lib", "test/support", Path.expand("../foundation/test/support", __DIR__)]

  defp elixirc_paths(_env), do: ["lib"]

  # The tests look for what they left behind with Lineage; the application itself needs nothing of it.
  defp deps do
    [
      {:foundation, path: "../foundation"},
      {:lineage, path: "../..", only: :test, runtime: false}
    ]
  end
end
