# FOUNDATION_SUPERVISION=off tests the node as it was audited: then the tests fail that start such code, for what they leave.
if System.get_env("FOUNDATION_SUPERVISION") == "off" do
  for phase <- [:phase_1, :phase_2, :phase_3], do: Foundation.Supervision.switch(phase, false)
end

ExUnit.start(capture_log: true)
Foundation.Test.Census.watch_suite()
