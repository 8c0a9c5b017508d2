ExUnit.start(timeout: 120_000, assert_receive_timeout: 10_000)
