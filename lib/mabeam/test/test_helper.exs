Foundation.Test.Census.as_told()
ExUnit.start(capture_log: true, assert_receive_timeout: 10_000)
Foundation.Test.Census.watch_suite()
