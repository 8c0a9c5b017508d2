defmodule Foundation.Coordination.PlanTest do
  use ExUnit.Case, async: true

  alias Foundation.Coordination.{Head, Plan}

  # A member of three, `nodes` being the composition of its latest epoch.
  defp member(node, options \\ []) do
    nodes = Keyword.get(options, :nodes, [])

    head = %{
      Head.beginning()
      | epoch: Keyword.get(options, :epoch, 0),
        number: Keyword.get(options, :number, 0),
        nodes: nodes
    }

    active = Keyword.get(options, :active, [])
    ended = if nodes -- active == [], do: 0, else: head.epoch

    %{
      node: node,
      head: head,
      table?: active != [],
      active: active,
      lost: [],
      promised: head.epoch,
      ended: Keyword.get(options, :ended, ended),
      apart?: false
    }
  end

  defp fresh(node), do: member(node)

  defp holder(node, active, epoch, number \\ 0, nodes \\ nil),
    do: member(node, active: active, epoch: epoch, number: number, nodes: nodes || active)

  test "nothing is made before a majority is there" do
    assert Plan.decide(fresh(:a), [], 3) == :wait
    assert Plan.decide(fresh(:a), [fresh(:b)], 5) == :wait
  end

  test "of a majority that knows nothing one makes the table, the others join it" do
    assert Plan.decide(fresh(:b), [fresh(:a)], 3) == :create
    assert Plan.decide(fresh(:a), [fresh(:b)], 3) == :wait
    assert Plan.decide(fresh(:a), [member(:b, active: [:b])], 3) == {:join, [:b]}
    assert Plan.decide(fresh(:a), [], 1) == :create
  end

  test "a majority of copies that is in no epoch begins one" do
    a = member(:a, active: [:a, :b])
    b = member(:b, active: [:a, :b])
    assert Plan.decide(a, [b], 3) == :begin

    assert Plan.decide(holder(:a, [:a, :b], 4, 7, [:a, :b, :c]), [holder(:b, [:a, :b], 4)], 3) ==
             :begin

    assert Plan.decide(holder(:a, [:a, :b], 4), [holder(:b, [:a, :b], 4), fresh(:c)], 3) ==
             :settled
  end

  test "a composition that was interrupted begins an epoch, though it is the same" do
    a = holder(:a, [:a, :b], 4)
    assert Plan.decide(%{a | ended: 4}, [holder(:b, [:a, :b], 4)], 3) == :begin
    assert Plan.decide(a, [%{holder(:b, [:a, :b], 4) | ended: 4}], 3) == :begin
  end

  test "the copy of one that does not answer is dropped, if the others are a majority" do
    a = %{holder(:a, [:a, :b, :c], 4) | ended: 4}
    b = holder(:b, [:a, :b, :c], 4)
    assert Plan.decide(a, [b], 3) == {:doubt, {:drop, [:c]}}
    assert Plan.decide(a, [], 3) == :wait
  end

  test "whose copy has come apart leaves" do
    others = [holder(:a, [:a, :b, :c], 4), holder(:b, [:a, :b, :c], 4)]
    assert Plan.decide(%{holder(:c, [:a, :b, :c], 4) | apart?: true}, others, 3) == :part
  end

  test "who is joined has forgotten the others before" do
    a = %{holder(:a, [:a, :b], 4) | lost: [:c]}
    b = %{holder(:b, [:a, :b], 4) | lost: [:c]}
    assert Plan.decide(a, [b, fresh(:c)], 3) == :forget
    assert Plan.decide(fresh(:c), [a, b], 3) == :wait

    best = %{holder(:b, [:b], 3, 11, [:b, :c]) | lost: [:c]}
    other = holder(:c, [:c], 3, 10, [:b, :c])
    assert Plan.decide(best, [other], 3) == :part
    assert Plan.decide(other, [best], 3) == :wait
  end

  test "who is not part of the majority joins it, even with the later head" do
    others = [holder(:a, [:a, :b], 4), holder(:b, [:a, :b], 4)]
    assert Plan.decide(fresh(:c), others, 3) == {:join, [:a, :b]}
    assert Plan.decide(holder(:c, [:c], 3, 99, [:a, :b, :c]), others, 3) == {:join, [:a, :b]}
    assert Plan.decide(holder(:c, [:c], 9, 99, [:a, :b, :c]), others, 3) == {:join, [:a, :b]}
  end

  test "nobody joins a part of a majority only" do
    assert Plan.decide(fresh(:c), [holder(:a, [:a, :b], 4)], 3) == :wait
  end

  test "without a majority the latest head is joined: the epoch first, then the number" do
    b = holder(:b, [:b], 2, 90, [:a, :b, :c])
    c = holder(:c, [:c], 3, 10, [:b, :c])
    assert Plan.decide(b, [c], 3) == {:join, [:c]}
    assert Plan.decide(c, [b], 3) == :wait

    later = holder(:b, [:b], 3, 11, [:b, :c])
    assert Plan.decide(later, [c], 3) == :wait
    assert Plan.decide(c, [later], 3) == {:join, [:b]}
  end

  test "a tie is broken by name" do
    b = holder(:b, [:b], 3, 10, [:b, :c])
    c = holder(:c, [:c], 3, 10, [:b, :c])
    assert Plan.decide(b, [c], 3) == {:join, [:c]}
    assert Plan.decide(c, [b], 3) == :wait
  end

  test "who has lost its memory makes no majority with one that is alone" do
    alone = holder(:b, [:b], 3, 10, [:a, :b, :c])
    assert Plan.decide(alone, [fresh(:a)], 3) == :wait
    assert Plan.decide(fresh(:a), [alone], 3) == :wait
  end

  test "when all are there, who knows most is joined, though the others know nothing" do
    alone = holder(:b, [:b], 3, 10, [:a, :b, :c])
    assert Plan.decide(alone, [fresh(:a), fresh(:c)], 3) == :wait
    assert Plan.decide(fresh(:a), [alone, fresh(:c)], 3) == {:join, [:b]}
  end

  test "a head that was kept without its table counts, and its table is made again" do
    kept = %{fresh(:b) | head: %{Head.beginning() | epoch: 3, number: 10, nodes: [:a, :b, :c]}}
    other = holder(:c, [:c], 3, 9, [:a, :b, :c])
    assert Plan.decide(kept, [other], 3) == :create
    assert Plan.decide(other, [kept], 3) == :wait
  end

  test "what members say of each other is doubted when it contradicts itself" do
    a = holder(:a, [:a, :b, :c], 3, 10)
    b = holder(:b, [:a, :b], 3, 10, [:a, :b, :c])
    c = holder(:c, [:a, :c], 3, 10, [:a, :b, :c])
    assert Plan.decide(c, [a, b], 3) == {:doubt, :part}
    parted = %{a | active: [:a]}
    assert Plan.decide(b, [parted, c], 3) == {:doubt, {:join, [:a]}}
  end
end
