# LEAKS_START: when the line stands before ExUnit.start(), after it, or not at all.
start = fn moment ->
  if System.get_env("LEAKS_START", "before") == moment do
    action = String.to_existing_atom(System.get_env("LEAKS_ACTION", "raise"))
    within = String.to_integer(System.get_env("LEAKS_WITHIN", "500"))
    Lineage.ExUnit.start(within: within, action: action, ignore: [{:label, "never there"}])
  end
end

if System.get_env("LEAKS_ATTACHED"), do: {:ok, _} = Lineage.attach()

start.("before")
ExUnit.start(formatters: [ExUnit.CLIFormatter, UserLeaks.Record], capture_log: true)
start.("after")
