"""The approval page: a request in words, a passkey ceremony over exactly it, and a JSON API."""

from safehold.console.approvals.server import approvals_app, serve_approvals

__all__ = ["approvals_app", "serve_approvals"]
