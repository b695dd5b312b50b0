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
      // EdDSA and ES256, in this order: what trust/people/passkey.py takes.
      pubKeyCredParams: [-8, -7].map((alg) => ({ type: "public-key", alg })),
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
  let value;
  try {
    value = await answer.json();
  } catch {
    throw new Error(`the server's answer (status ${answer.status}) can't be read: `
      + "load the page again; you may be logged out.");
  }
  if (!answer.ok) throw new Error(value.error ?? `error ${answer.status}`);
  return value;
}

// What the browser says of a refused ceremony is about privacy, not about what to do next.
const WHY = {
  NotAllowedError: "the key gave no signature. It was cancelled or waited too long, it is not one "
    + "of yours that is enrolled here, or it verifies nobody: set a PIN or a fingerprint on it.",
  ConstraintError: "the key can't verify who you are: set a PIN or a fingerprint on it.",
  InvalidStateError: "this key is enrolled already.",
  NotSupportedError: "this key makes none of the signatures that are taken here "
    + "(EdDSA, ES256).",
  SecurityError: "this page's address is not the one that the policy names.",
  AbortError: "it was broken off.",
  TypeError: "the server does not answer.",
};

export const why = (error) => WHY[error.name] ?? error.message;

// Say what is waited for, and take no second click until that is over.
export async function waiting(text, work) {
  const buttons = [...document.querySelectorAll("button")];
  say(text);
  buttons.forEach((button) => { button.disabled = true; });
  try {
    return await work();
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

export const KEY_WAITS = "Waiting for your key: touch it, and prove that it is you "
  + "(PIN or fingerprint).";

export const byId = (id) => document.getElementById(id);

export function say(text) {
  byId("status").textContent = text;
}
