"""What a browser sees of the API's pages, and sends from their forms."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO

from django.test import Client, RequestFactory
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

AS_BROWSERS_DO = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Browser(Client):
    """Asks for pages, and sends forms as the page's own script does: with the token that the page holds."""

    def __init__(self, user):
        super().__init__(enforce_csrf_checks=True, raise_request_exception=False, headers={"Accept": AS_BROWSERS_DO})
        self.force_login(user)

    def form(self, method, path):
        """The form for that method on the path's page, None if there is none."""
        return form_in(self._page(path), method)

    def send(self, method, path, form, wanted):
        """The form as it stands there, but for what is wanted; where it has no fields of its own, its text."""
        if not form.fields:
            return self.send_text(method, path, form, wanted)
        return self.submit(method, path, form.fields | {name: _entered(value) for name, value in wanted.items()})

    def send_text(self, method, path, form, wanted):
        body = json.loads(form.text.strip() or "{}") | wanted
        return self._send(method, path, json.dumps(body), form.kinds[0])

    def submit(self, method, path, fields=None):
        return self._send(method, path, encode_multipart(BOUNDARY, fields or {}), MULTIPART_CONTENT)

    def _send(self, method, path, body, kind):
        token = re.search(r'"csrfToken": "(\w+)"', self._page(path))[1]
        return self.generic(method, path, body, kind, headers={"X-CSRFToken": token})

    def _page(self, path):
        answer = self.get(path)
        # Where GET answers with a file, the page is the one about the address itself.
        return (answer if answer["Content-Type"].startswith("text/html") else self.options(path)).text


@dataclass
class Form:
    """`fields` as they are filled in, and the text with its media types of the form for what is sent as it stands."""

    fields: dict[str, str] = field(default_factory=dict)
    text: str = ""
    kinds: list[str] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self):
        super().__init__()
        self.forms, self.sent_by = {}, {}
        self._place, self._within, self._select = None, None, None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "div" and re.fullmatch(r"(post|put)-(object|generic-content)-form", given.get("id", "")):
            self._place = given["id"]
            self.forms[self._place] = {}
        elif self._place and tag == "button":
            method = given.get("data-method") or self._place.partition("-")[0].upper()
            self.sent_by.setdefault(method, self._place.partition("-")[0])
        elif self._place and given.get("name"):
            self._field(tag, given)
        elif self._select and tag == "option":
            self.forms[self._place][self._select].append((given["value"], "selected" in given))

    def _field(self, tag, given):
        self._within = given["name"] if tag == "textarea" else None
        self._select = given["name"] if tag == "select" else None
        value = {"select": [], "textarea": ""}.get(tag, given.get("value", ""))
        if given.get("type") == "checkbox" and "checked" not in given:
            value = None
        self.forms[self._place][given["name"]] = value

    def handle_data(self, data):
        if self._within:
            self.forms[self._place][self._within] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            self._within = None
        if tag == "select":
            self._select = None
        if tag == "form":
            self._place = None


def form_in(page, method):
    found = _Forms()
    found.feed(page)
    place = found.sent_by.get(method)
    if place is None:
        return None
    fields = found.forms.get(f"{place}-object-form", {}) if method != "PATCH" else {}
    raw = found.forms[f"{place}-generic-content-form"]
    kinds = [value for value, _ in sorted(raw["_content_type"], key=lambda each: not each[1])]
    return Form({name: _chosen(each) for name, each in fields.items() if each is not None}, raw["_content"], kinds)


def _chosen(value):
    if isinstance(value, list):
        return next((each for each, is_selected in value if is_selected), value[0][0] if value else "")
    return value


def _entered(value):
    if isinstance(value, bytes):
        file = BytesIO(value)
        file.name = "file"
        return file
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def fields_of(request):
    """What a program's request has in its body, by name."""
    if not request:
        return {}
    if request["content_type"] == "application/json":
        return json.loads(request["data"])
    sent = RequestFactory().generic("POST", "/", **request)
    return sent.POST.dict() | {name: b"".join(file.blocks()) for name, file in sent.FILES.items()}
