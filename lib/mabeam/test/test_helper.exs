ExUnit.start(capture_log: true)
Foundation.Test.Census.watch_suite()
