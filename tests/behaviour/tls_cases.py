"""The table of TLS at its edges: what either side does, row by row. test_tls_edges.py plays it.

A row is a script for the application (`made` in connection_made, `ours` behind it) and one for the peer. The peer's
script runs in a thread; where it does not end the connection, both sides part politely afterwards.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
from typing import Any, Final

from tests.behaviour.tls_scripts import (
    BULK,
    MEBIBYTE,
    PARTED,
    SIZES,
    Row,
    abort,
    after,
    by_openssl,
    changes_its_buffer,
    close,
    closes_with_unread,
    data,
    empty,
    ends_twice,
    fin,
    goodbye,
    hears_goodbye,
    more,
    noise,
    pause,
    paused_while,
    pauses_at_once,
    pauses_for_a_while,
    pauses_now_and_then,
    reads,
    reads_on,
    releases,
    renegotiates,
    resets,
    resumes_when_released,
    sends,
    sends_a_file,
    sets_limits_after_the_end,
    then,
    two_protocols,
    until_released,
    update,
    uses_it_after_the_end,
    waits,
    waits_for_room_of_nothing,
    write,
    writes,
    writes_and_closes,
    writes_in_turns,
    writes_lines,
    writes_much,
    writes_until_paused,
    writes_until_paused_then,
)


def rows() -> Iterator[Row]:
    for size in SIZES:
        yield Row(f"write {size}", reads(size), writes(BULK[:size]))
        yield Row(f"write {size} in connection_made", reads(size), made=write(BULK[:size]))
        yield Row(f"write {size}, then 1", reads(size + 1), writes(BULK[:size], b"1"))
        yield Row(f"write {size} in a bytearray", reads(size), writes(bytearray(BULK[:size])))
        yield Row(f"hear {size}", sends(data(size)), after(size))
        yield Row(
            f"answer {size}", then(sends(data(size)), reads(size)), after(size, lambda o: o.transport.write(o.heard))
        )
    for name, make in {
        "nothing": list,
        "nothing but an empty one": lambda: [b""],
        "an empty one between": lambda: [b"one", b"", b"two"],
        "empty ones around much": lambda: [b"", BULK[:16385], b"", BULK[:1], b""],
        "many": lambda: [b"x"] * 1000,
        "1 MiB and an empty one": lambda: [BULK[:MEBIBYTE], bytearray(), b"1"],
        "a generator": lambda: (BULK[:n] for n in (0, 1, 16384, 0, 16385)),
        "views": lambda: [memoryview(BULK)[:20000], memoryview(b""), bytearray(b"abc")],
    }.items():
        yield Row(f"writelines of {name}", reads(sum(map(len, make()))), writes_lines(make))
    ints = array.array("I", range(10_000))
    yield Row("write a view of integers", reads(40_000), writes(memoryview(ints)))
    yield Row("writelines of an array", reads(40_001), writes_lines(lambda: [ints, b"1"]))

    for piece in (0, 1, 50):
        yield Row(f"a handshake in pieces of {piece or 'any size'}", then(sends(data(1)), reads(1)),
                  after(1, write(b"x")), piece=piece)  # fmt: skip
    for size in (1, 16385, 100_000):
        yield Row(f"{size} behind the handshake", reads(1), after(size, write(b"x")), behind=data(size))
        yield Row(f"{size} behind the handshake while paused", reads(1), paused_while(write(b"x")), made=pause,
                  behind=data(size))  # fmt: skip
    yield Row("goodbye behind the handshake", waits, behind=goodbye)
    yield Row("data and goodbye behind the handshake", waits, behind=lambda p: p.data(b"hello") + p.goodbye())

    # -- flow control --------------------------------------------------------------------------------------------------
    for size in (1, 16385, 300_000, MEBIBYTE):
        yield Row(f"paused while {size} come", sends(data(size)), paused_while(), made=pause)
    for size in (1, 16385, MEBIBYTE):
        yield Row(
            f"paused while 300 kB come, and {size} are written",
            then(sends(data(300_000)), reads(size)),
            paused_while(write(BULK[:size])),
            made=pause,
        )
    yield Row("paused in connection_made until the peer has shaken hands", then(releases, sends(data(10))),
              resumes_when_released, made=pause, expected={"heard": BULK[:10], "ours": PARTED})  # fmt: skip
    yield Row("pauses now and then", sends(data(MEBIBYTE)), pauses_now_and_then)
    yield Row("pauses in data_received", sends(data(MEBIBYTE)), data=pauses_for_a_while)
    full = then(until_released, reads(8 * MEBIBYTE))
    yield Row("write 8 MiB to a peer that does not read yet", full, writes_until_paused)
    for way in ("close", "abort"):
        yield Row(
            f"{way} with 8 MiB to write",
            full if way == "close" else then(until_released, waits),
            lambda o, way=way: writes_until_paused_then(o, way),
            cut=way == "abort",
        )
    yield Row(
        "a buffer that changes after the write",
        then(until_released, reads(6 * MEBIBYTE + 300_000)),
        changes_its_buffer,
    )
    yield Row(
        "a high water of 0",
        reads(30_000),
        waits_for_room_of_nothing,
        expected={"heard by peer": BULK[:30_000]},
    )
    yield Row("sendfile", reads(300_000), sends_a_file)
    yield Row("set_protocol", then(sends(data(5)), reads(5), sends(more(5, 40_000))), two_protocols)

    # -- records -------------------------------------------------------------------------------------------------------
    for piece, size in ((1, 300), (5, 2000), (100, 20_000), (16_000, 200_000)):
        yield Row(f"records in pieces of {piece}", sends(data(size), piece=piece), after(size))
    for record in (1, 100, 16384):
        size = min(record * 300, 200_000)
        yield Row(f"{size} in records of {record}", sends(data(size, record)), after(size))
    yield Row("an empty record", sends(empty), None)
    yield Row("empty records around data", sends(empty, data(10), empty, empty, more(10, 30_000), empty), after(30_000))
    yield Row("31 empty records, then data", sends(*[empty] * 31, data(10)), after(10))
    yield Row("100 empty records", then(sends(*[empty] * 100, data(10)), waits))
    yield Row("data, then noise", then(sends(data(10), noise), waits))
    yield Row("noise", then(sends(noise), waits))
    yield Row("a fatal alert", then(lambda p, o: p.send(p.alert(80)), waits))
    yield Row("data and a fatal alert", then(lambda p, o: p.send(p.data(b"x") + p.alert(80)), waits))

    # -- new keys ------------------------------------------------------------------------------------------------------
    for request in (False, True):
        name = f"key update {'with' if request else 'without'} request"
        v13 = ("1.3",)
        yield Row(f"{name}, then data both ways",
                  then(sends(data(10), update(request), more(10, 50_000)), reads(50_000)),
                  after(50_000, write(BULK[:50_000])), versions=v13)  # fmt: skip
        yield Row(f"{name} before anything", then(sends(update(request)), reads(50_000), sends(data(9))),
                  writes(BULK[:50_000]), versions=v13)  # fmt: skip
        yield Row(f"{name}, 20 times", then(sends(*[update(request)] * 20, data(10)), reads(10)),
                  after(10, write(BULK[:10])), versions=v13)  # fmt: skip
        yield Row(f"{name} while paused", then(sends(update(request), data(20_000)), reads(20_000)),
                  paused_while(write(BULK[:20_000])), made=pause, versions=v13)  # fmt: skip
        yield Row(f"{name} amid back-pressure",
                  then(until_released, sends(update(request), data(10)), reads(8 * MEBIBYTE)),
                  writes_until_paused, versions=v13)  # fmt: skip
    v12: dict[str, Any] = {"versions": ("1.2",)}
    yield Row("renegotiation", then(renegotiates, by_openssl(20_000), reads(20_000)),
              after(20_000, write(BULK[:20_000])), **v12)  # fmt: skip
    yield Row("renegotiation before a write", then(renegotiates, by_openssl(10), reads(MEBIBYTE)),
              after(10, write(BULK[:MEBIBYTE])), **v12)  # fmt: skip
    yield Row("renegotiation amid writes", then(renegotiates, by_openssl(10), reads(MEBIBYTE)), writes_in_turns, **v12)

    # -- ends of ours --------------------------------------------------------------------------------------------------
    yield Row("close", then(hears_goodbye, sends(goodbye), waits), lambda o: after(0, close)(o))
    yield Row("close in connection_made", then(hears_goodbye, sends(goodbye), waits), made=close)
    for name, script in {"": sends(data(10_000)), ", records behind it": sends(data(300, 100))}.items():
        yield Row(f"close in data_received{name}", then(script, hears_goodbye, sends(goodbye), waits), data=close)
    yield Row("close with 1 MiB to write", then(hears_goodbye, sends(goodbye), waits), writes_and_closes)
    yield Row("close, and the peer's data is unread", then(sends(data(1)), until_released, sends(data(10)), waits),
              closes_with_unread, data=pauses_at_once)  # fmt: skip
    yield Row("close, and the peer's goodbye is unread", then(sends(data(1)), until_released, sends(goodbye), waits),
              closes_with_unread, data=pauses_at_once)  # fmt: skip
    yield Row("close, and the peer sends on", then(hears_goodbye, sends(data(10)), waits), after(0, close))
    yield Row("close, and the peer sends a FIN", then(hears_goodbye, fin), after(0, close))
    yield Row("close twice", then(hears_goodbye, sends(goodbye), waits), ends_twice("close", "close"))
    yield Row("close and abort", waits, ends_twice("close", "abort"), cut=True)
    yield Row("abort twice", waits, ends_twice("abort", "abort"), cut=True)
    yield Row("abort", waits, after(0, abort), cut=True)
    yield Row("abort in connection_made", waits, made=abort, cut=True)
    yield Row("abort in data_received", then(sends(data(10)), waits), data=abort, cut=True)
    yield Row("abort behind a write", waits, after(0, write(b"x"), abort), cut=True)
    yield Row("writes after the end", then(hears_goodbye, sends(goodbye), waits), uses_it_after_the_end)

    yield Row("limits after the end, which came amid back-pressure", then(until_released, resets),
              sets_limits_after_the_end, expected={"problems": []})  # fmt: skip

    # -- ends of the peer ----------------------------------------------------------------------------------------------
    yield Row("goodbye without FIN", then(sends(goodbye), waits))
    yield Row("FIN without goodbye", fin)
    yield Row("goodbye and FIN", then(sends(goodbye), fin))
    for size in (1, 16385, 100_000):
        yield Row(f"{size} together with the goodbye", then(sends(data(size), goodbye), waits))
        yield Row(f"{size}, goodbye and FIN", then(sends(data(size), goodbye), fin))
        yield Row(f"{size} and FIN without goodbye", then(sends(data(size)), fin))
    yield Row("goodbye in pieces of one byte", then(sends(data(3), goodbye, piece=1), waits))
    yield Row("half a record and FIN", then(lambda p, o: p.send(p.data(b"abc")[:-1]), fin))
    for name, script in {
        "goodbye": then(sends(more(1, 10), goodbye), waits),
        "FIN": then(sends(more(1, 10)), fin),
        "goodbye and FIN": then(sends(more(1, 10), goodbye), fin),
    }.items():
        yield Row(f"{name} while paused", then(sends(data(1)), until_released, script), reads_on, data=pauses_at_once)
    yield Row("goodbye, and data behind it", then(sends(data(3), goodbye, more(3, 9)), waits))
    yield Row("goodbye amid back-pressure", then(until_released, sends(goodbye), waits), writes_much)
    yield Row("FIN amid back-pressure", then(until_released, fin), writes_much)
    yield Row("reset", then(reads(1), resets), writes(b"x"))
    yield Row("data and reset", then(sends(data(5)), reads(5), resets), after(5, write(b"12345")))

    # -- buffers -------------------------------------------------------------------------------------------------------
    for size in (1, 7, 16383, 16384, 16385, 65536):
        # Small records too: several to a buffer, and a record to several buffers.
        count = min(size * 50, 200_000)
        for kind, make in {"view": lambda n: memoryview(bytearray(n)), "bytearray": bytearray}.items():
            script = sends(data(count // 2, 1000), more(count // 2, count))
            yield Row(f"{kind}s of {size} from get_buffer", script, after(count), buffer=lambda n=size, m=make: m(n),
                      expected={"heard": BULK[:count]} if kind == "bytearray" else None)  # fmt: skip
    yield Row("arrays of integers from get_buffer", sends(data(40_000, 999)), after(40_000),
              buffer=lambda: array.array("I", bytes(4000)), expected={"heard": BULK[:40_000]})  # fmt: skip
    yield Row("buffers and goodbye", then(sends(data(100), goodbye), waits), buffer=lambda: memoryview(bytearray(30)))
    yield Row("buffers while paused", sends(data(50_000)), paused_while(), made=pause,
              buffer=lambda: memoryview(bytearray(1000)))  # fmt: skip
    for name, make in {"bytearray": bytearray, "view": lambda: memoryview(bytearray())}.items():
        yield Row(f"an empty {name} from get_buffer", then(sends(data(10)), waits), buffer=make,
                  expected={"ours": ["made", "lost RuntimeError"], "problems": ["RuntimeError"]})  # fmt: skip
    yield Row("a buffer that cannot be written to", then(sends(data(10)), waits), buffer=lambda: b"bytes")
    yield Row("no buffer at all", then(sends(data(10)), waits), buffer=lambda: None)


ROWS: Final = tuple(rows())
