"""People."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict
from sqlalchemy import exists, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from open_webui.internal.db import Base, get_db


class User(Base):
    """A person; the role is admin, user or pending."""

    __tablename__ = "user"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    profile_image_url: Mapped[str]
    last_active_at: Mapped[int]
    updated_at: Mapped[int]
    created_at: Mapped[int]


class UserModel(BaseModel):
    """A person as the rest of the host hands them about."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    email: str
    role: str = "pending"
    profile_image_url: str
    last_active_at: int
    updated_at: int
    created_at: int


class UsersTable:
    """Reads and writes of people."""

    def insert_new_user(
        self,
        db: Session,
        id: str,  # noqa: A002
        name: str,
        email: str,
        profile_image_url: str,
        role: str,
    ) -> UserModel:
        """Add a person in the caller's transaction."""
        now = int(time.time())
        user = User(
            id=id,
            name=name,
            email=email,
            role=role,
            profile_image_url=profile_image_url,
            last_active_at=now,
            updated_at=now,
            created_at=now,
        )
        db.add(user)
        return UserModel.model_validate(user)

    def get_user_by_id(self, id: str) -> UserModel | None:  # noqa: A002
        """One person."""
        with get_db() as db:
            user = db.get(User, id)
            return UserModel.model_validate(user) if user else None

    def get_user_by_email(self, email: str) -> UserModel | None:
        """One person; addresses are kept in lower case."""
        with get_db() as db:
            user = db.scalar(select(User).where(User.email == email))
            return UserModel.model_validate(user) if user else None

    def has_users(self) -> bool:
        """Whether anybody has signed up."""
        with get_db() as db:
            return bool(db.scalar(select(exists(select(User.id)))))

    def update_last_active_by_id(self, id: str) -> None:  # noqa: A002
        """Note that somebody was here; after every request, so it must not fail one."""
        try:
            with get_db() as db:
                now = int(time.time())
                db.execute(update(User).where(User.id == id).values(last_active_at=now))
                db.commit()
        except Exception:  # noqa: BLE001 - costs only the time of the visit
            pass


Users = UsersTable()
