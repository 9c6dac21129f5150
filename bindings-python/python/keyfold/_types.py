"""Which objects are values of fields."""

from datetime import date, datetime
from decimal import Decimal
from typing import TypeAlias

Value: TypeAlias = str | bytes | bytearray | memoryview | int | float | bool | date | datetime | Decimal
"""What can be encrypted. A datetime has a time zone."""

Opened: TypeAlias = str | bytes | int | float | bool | date | datetime | Decimal | None
"""What decrypting gives: `bytes` for every kind of buffer, datetimes in UTC, None for a null that was sealed elsewhere."""
