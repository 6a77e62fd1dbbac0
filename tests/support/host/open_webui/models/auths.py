"""Passwords and the forms that carry them."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from pydantic import BaseModel
from sqlalchemy.orm import Mapped, mapped_column

from open_webui.internal.db import Base, get_db
from open_webui.models.users import UserModel, Users


class Auth(Base):
    """A person's password, apart from the person."""

    __tablename__ = "auth"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    password: Mapped[str]
    active: Mapped[bool]


class SigninForm(BaseModel):
    """The body of a sign-in."""

    email: str
    password: str


class SignupForm(BaseModel):
    """The body of a sign-up; real hosts of this kind want both consents."""

    name: str
    email: str
    password: str
    profile_image_url: str = "/user.png"
    terms_accepted: bool = False
    privacy_accepted: bool = False


class AddUserForm(SignupForm):
    """The body by which an administrator adds somebody; no consents are asked for."""

    role: str = "pending"


class SessionUserResponse(BaseModel):
    """A person and the token they go by from now on."""

    token: str
    token_type: str = "Bearer"
    id: str
    email: str
    name: str
    role: str
    profile_image_url: str


class AuthsTable:
    """Reads and writes of passwords."""

    def insert_new_auth(
        self,
        email: str,
        password: str,
        name: str,
        profile_image_url: str = "/user.png",
        role: str = "pending",
    ) -> UserModel:
        """Add a person; `password` is the hash."""
        with get_db() as db:
            auth = Auth(id=str(uuid.uuid4()), email=email, password=password, active=True)
            db.add(auth)
            user = Users.insert_new_user(db, auth.id, name, email, profile_image_url, role)
            db.commit()
            return user

    def authenticate_user(self, email: str, verify_password: Callable[[str], bool]) -> UserModel | None:
        """The person, if the check of their stored hash says so."""
        user = Users.get_user_by_email(email)
        if user is None:
            return None
        with get_db() as db:
            auth = db.get(Auth, user.id)
            known = auth is not None and auth.active and verify_password(auth.password)
            return user if known else None


Auths = AuthsTable()
