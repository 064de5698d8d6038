"use strict";

// The key is kept in memory only: in no cookie, no storage, no URL.
const form = document.getElementById("key-form");
const message = document.getElementById("message");
const base = new URL(".", document.baseURI).pathname.replace(/\/$/, "");
let key = "";

function withKey(request) {
  if (key && new URL(request.url, location.href).origin === location.origin) {
    request.headers = { ...request.headers, Authorization: `Bearer ${key}` };
  }
  return request;
}

async function show() {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch("openapi.json", { headers });
  if (!answer.ok) {
    form.hidden = false;
    message.textContent = key ? (await answer.json()).detail : "";
    return;
  }
  form.hidden = true;
  const spec = await answer.json();
  spec.servers = [{ url: base || "/" }];
  window.SwaggerUIBundle({ spec, dom_id: "#api", deepLinking: true, requestInterceptor: withKey });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  key = document.getElementById("key").value.trim();
  show();
});
show();
