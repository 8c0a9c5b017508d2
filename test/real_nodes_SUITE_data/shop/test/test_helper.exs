# Mix forgets paths that were given on the command line.
for path <- String.split(System.fetch_env!("LINEAGE_TEST_EBINS"), ":") do
  :code.add_patha(String.to_charlist(path))
end

ExUnit.start(seed: 0, timeout: 120_000)
