defmodule UserLeaks.MixProject do
  use Mix.Project

  def project do
    [
      app: :user_leaks,
      version: "1.0.0",
      elixir: "~> 1.14",
      elixirc_paths: ["lib"] ++ if(Mix.env() == :test, do: ["test/support"], else: []),
      deps: [{:lineage, path: "../.."}]
    ]
  end

  def application, do: [mod: {UserLeaks.Application, []}, extra_applications: [:logger]]
end
