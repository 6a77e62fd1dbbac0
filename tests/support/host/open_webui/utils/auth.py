"""Who is asking: passwords, tokens and the dependencies of the routes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from typing import Annotated, Any

import jwt
from fastapi import BackgroundTasks, Depends, HTTPException, Request, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from open_webui.env import WEBUI_SECRET_KEY
from open_webui.models.users import UserModel, Users

ALGORITHM = "HS256"
# No cost to speak of: the accounts are made up, and tests make thousands.
SCRYPT = {"n": 2, "r": 8, "p": 1}

bearer_security = HTTPBearer(auto_error=False)


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(status_code=status.HTTP_401_UNAUTHORIZED, detail=detail)


def get_password_hash(password: str) -> str:
    """A salted hash, with its salt."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **SCRYPT).hex()}"


def verify_password(plain_password: str, hashed_password: str) -> bool:
    """Whether the hash is this password's."""
    salt, digest = (bytes.fromhex(part) for part in hashed_password.split("$"))
    return hmac.compare_digest(digest, hashlib.scrypt(plain_password.encode(), salt=salt, **SCRYPT))


def create_token(data: dict[str, Any]) -> str:
    """A bearer token that does not expire."""
    claims = data | {"jti": str(uuid.uuid4())}
    return jwt.encode(claims, WEBUI_SECRET_KEY, algorithm=ALGORITHM)


def decode_token(token: str) -> dict[str, Any] | None:
    """What a token says, if it is ours."""
    try:
        return dict(jwt.decode(token, WEBUI_SECRET_KEY, algorithms=[ALGORITHM]))
    except jwt.PyJWTError:
        return None


async def get_current_user(
    request: Request,
    background_tasks: BackgroundTasks,
    auth_token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_security)],
) -> UserModel:
    """Whoever the bearer token, or else the cookie, names."""
    token = auth_token.credentials if auth_token else request.cookies.get("token")
    if token is None:
        raise _unauthorized("Not authenticated")
    claims = decode_token(token)
    if claims is None or "id" not in claims:
        raise _unauthorized("401 Unauthorized")
    # Flaw: a database read on the event loop, by every request.
    user = Users.get_user_by_id(claims["id"])
    if user is None:
        raise _unauthorized("The token belongs to nobody any more")
    background_tasks.add_task(Users.update_last_active_by_id, user.id)
    return user


def get_verified_user(user: Annotated[UserModel, Depends(get_current_user)]) -> UserModel:
    """Anybody an administrator has let in."""
    if user.role not in {"user", "admin"}:
        raise _unauthorized("This account has not been activated")
    return user


def get_admin_user(user: Annotated[UserModel, Depends(get_current_user)]) -> UserModel:
    """Administrators only."""
    if user.role != "admin":
        raise _unauthorized("Only an administrator may do this")
    return user
