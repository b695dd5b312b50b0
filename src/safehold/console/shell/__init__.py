"""The console's shell: logins, roles, headers, pages and live updates; no screen of its own."""
