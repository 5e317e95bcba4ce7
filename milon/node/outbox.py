"""Own transactions on their way into the chain: kept until the ledger shows that they are no longer needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from milon.base.ids import Digest
from milon.base.signing import SecretKey
from milon.base.units import Amount, Height, Nonce
from milon.chain.transaction import Action, Transaction, TransactionBody, sign_transaction

RESEND_BLOCKS = 8  # a transaction not in a block after so many is sent once more: somebody may have lost it


@dataclass(slots=True)
class _Entry:
    action: Action
    nonce: Nonce | None = None
    sent_height: int = 0


class Outbox:
    """Actions by the name of the duty they fulfil, in the order they were finished; nonces follow that order."""

    def __init__(self, key: SecretKey, chain_id: str, fee: Amount) -> None:
        """Sign with `key` for `chain_id`, each transaction paying `fee`."""
        self._key = key
        self._chain_id = chain_id
        self._fee = fee
        self._entries: dict[Digest, _Entry] = {}

    def add(self, name: Digest, action: Action) -> None:
        """Keep an action until `retain` no longer names its duty."""
        self._entries.setdefault(name, _Entry(action))

    def __contains__(self, name: Digest) -> bool:
        return name in self._entries

    def retain(self, names: Iterable[Digest]) -> None:
        """Forget the actions whose duties are done or over."""
        wanted = frozenset(names)
        self._entries = {name: entry for name, entry in self._entries.items() if name in wanted}

    def due(self, next_nonce: Nonce, taken: frozenset[int], height: Height) -> tuple[Transaction, ...]:
        """The transactions to send now: new ones, those whose nonce has moved, and those sent long ago.

        `taken` are nonces that the account's owner has used for transactions of their own, still waiting.
        """
        due: list[Transaction] = []
        nonce = int(next_nonce)
        for entry in self._entries.values():
            while nonce in taken:
                nonce += 1
            if entry.nonce != nonce or height - entry.sent_height >= RESEND_BLOCKS:
                entry.nonce, entry.sent_height = Nonce(nonce), int(height)
                due.append(self._sign(entry))
            nonce += 1
        return tuple(due)

    def _sign(self, entry: _Entry) -> Transaction:
        if entry.nonce is None:
            raise RuntimeError("an entry without a nonce")
        body = TransactionBody(self._chain_id, self._key.account, entry.nonce, self._fee, entry.action)
        return sign_transaction(self._key, body)

    def own_nonces(self) -> frozenset[int]:
        """The nonces this outbox has given out."""
        return frozenset(int(entry.nonce) for entry in self._entries.values() if entry.nonce is not None)
