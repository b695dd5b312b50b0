// Encodings, the challenge, and the two WebAuthn ceremonies. No state, no network.
const encoder = new TextEncoder();

export const toBase64Url = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

export const fromBase64Url = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

// SHA-256 of `safehold-<act>/1`, a zero byte and the canonical text: what the server will compute.
export async function challengeOf(act, canonical) {
  const bytes = encoder.encode(`safehold-${act}/1\0${canonical}`);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export async function assertion(challenge, rpId, credentials) {
  const credential = await navigator.credentials.get({
    publicKey: {
      challenge,
      rpId,
      userVerification: "required",
      allowCredentials: credentials.map((id) => ({ type: "public-key", id: fromBase64Url(id) })),
    },
  });
  return {
    type: "assertion",
    credential_id: toBase64Url(credential.rawId),
    authenticator_data: toBase64Url(credential.response.authenticatorData),
    client_data_json: toBase64Url(credential.response.clientDataJSON),
    signature: toBase64Url(credential.response.signature),
  };
}

export async function creation(options) {
  const credential = await navigator.credentials.create({
    publicKey: {
      challenge: fromBase64Url(options.challenge),
      rp: options.rp,
      user: { ...options.user, id: fromBase64Url(options.user.id) },
      pubKeyCredParams: [{ type: "public-key", alg: -8 }, { type: "public-key", alg: -7 }],
      authenticatorSelection: { userVerification: "required" },
      attestation: "none",
      excludeCredentials: options.exclude.map((id) => ({
        type: "public-key", id: fromBase64Url(id),
      })),
    },
  });
  return {
    id: toBase64Url(credential.rawId),
    rawId: toBase64Url(credential.rawId),
    type: "public-key",
    response: {
      attestationObject: toBase64Url(credential.response.attestationObject),
      clientDataJSON: toBase64Url(credential.response.clientDataJSON),
    },
  };
}

export async function call(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `error ${answer.status}`);
  return value;
}

export const byId = (id) => document.getElementById(id);

export function say(text) {
  byId("status").textContent = text;
}
