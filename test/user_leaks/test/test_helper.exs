options = [
  action: String.to_atom(System.get_env("LEAKS_ACTION", "raise")),
  ignore: [{:label, "never there"}]
]

before? = System.get_env("LEAKS_START", "before") == "before"
if before?, do: Lineage.ExUnit.start(options)
ExUnit.start(formatters: [ExUnit.CLIFormatter, UserLeaks.Record], capture_log: true)
if not before?, do: Lineage.ExUnit.start(options)
