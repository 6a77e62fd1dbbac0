"""Accounts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response, status

from open_webui.models.auths import (
    AddUserForm,
    Auths,
    SessionUserResponse,
    SigninForm,
    SignupForm,
)
from open_webui.models.users import UserModel, Users
from open_webui.utils.auth import (
    create_token,
    get_admin_user,
    get_password_hash,
    verify_password,
)

router = APIRouter()


def _refuse(detail: str, code: int = status.HTTP_400_BAD_REQUEST) -> HTTPException:
    return HTTPException(status_code=code, detail=detail)


def _add(form: SignupForm, role: str) -> UserModel:
    email = form.email.lower()
    if "@" not in email:
        raise _refuse("This is not an email address")
    if Users.get_user_by_email(email):
        raise _refuse("This email address is taken")
    return Auths.insert_new_auth(
        email, get_password_hash(form.password), form.name, form.profile_image_url, role
    )


def _session(user: UserModel) -> SessionUserResponse:
    return SessionUserResponse(token=create_token({"id": user.id}), **user.model_dump())


def _signed_in(user: UserModel, response: Response) -> SessionUserResponse:
    session = _session(user)
    response.set_cookie("token", session.token, httponly=True, samesite="lax")
    return session


@router.post("/signup")
async def signup(form_data: SignupForm, response: Response) -> SessionUserResponse:
    """Make the first account, the administrator's; after it the door is shut."""
    if Users.has_users():
        raise _refuse("Signing up is closed", status.HTTP_403_FORBIDDEN)
    if not (form_data.terms_accepted and form_data.privacy_accepted):
        raise _refuse("terms_accepted and privacy_accepted must be true")
    return _signed_in(_add(form_data, "admin"), response)


@router.post("/signin")
async def signin(form_data: SigninForm, response: Response) -> SessionUserResponse:
    """Hand out a token for a password."""
    user = Auths.authenticate_user(
        form_data.email.lower(), lambda stored: verify_password(form_data.password, stored)
    )
    if user is None:
        raise _refuse("Wrong email address or password")
    return _signed_in(user, response)


@router.post("/add")
async def add_user(
    form_data: AddUserForm, _admin: Annotated[UserModel, Depends(get_admin_user)]
) -> SessionUserResponse:
    """Make an account for somebody else."""
    return _session(_add(form_data, form_data.role))
