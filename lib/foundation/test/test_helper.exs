Foundation.Test.Census.as_told()
ExUnit.start(capture_log: true)
Foundation.Test.Census.watch_suite()
