"""Integers with units. On the wire each is an unsigned integer below 2^63; the codec refuses anything else."""

from typing import NewType

Height = NewType("Height", int)  # blocks since genesis, genesis is 0
View = NewType("View", int)  # consensus views since the epoch's start, the first is 1
Epoch = NewType("Epoch", int)  # epochs since genesis, the first is 0
Amount = NewType("Amount", int)  # the smallest unit of the coin
Power = NewType("Power", int)  # voting power: bonded stake counted in `Amount`
TimeMs = NewType("TimeMs", int)  # milliseconds since 1970-01-01 UTC
Nonce = NewType("Nonce", int)  # transactions an account has sent
Round = NewType("Round", int)  # rounds of a job, the first is 0
Count = NewType("Count", int)  # how many of something

UNSIGNED: frozenset[object] = frozenset({Height, View, Epoch, Amount, Power, TimeMs, Nonce, Round, Count})

UNSIGNED_END = 1 << 63  # every unit fits a signed 64-bit integer on any machine
