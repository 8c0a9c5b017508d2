defmodule Foundation.Coordination.VectorClockTest do
  use ExUnit.Case, async: true

  alias Foundation.Coordination.Primitives

  test "clocks tell what may have caused what" do
    start = Primitives.new_vector_clock()
    a = Primitives.increment_clock(start, :a)
    b = Primitives.increment_clock(start, :b)
    both = Primitives.merge_clocks(a, b)

    assert Primitives.compare_clocks(start, start) == :equal
    assert Primitives.compare_clocks(start, a) == :before
    assert Primitives.compare_clocks(both, b) == :after
    assert Primitives.compare_clocks(a, b) == :concurrent
    assert Primitives.merge_clocks(b, a) == both
    assert Primitives.increment_clock(a, :a) == %{a: 2}
  end

  test "what is no clock is refused" do
    for bad <- [nil, [], %{a: 0}, %{a: :b}, %URI{}, 1] do
      assert Primitives.increment_clock(bad, :a) == {:error, :bad_clock}
      assert Primitives.merge_clocks(bad, %{}) == {:error, :bad_clock}
      assert Primitives.merge_clocks(%{}, bad) == {:error, :bad_clock}
      assert Primitives.compare_clocks(bad, %{}) == {:error, :bad_clock}
    end
  end
end
