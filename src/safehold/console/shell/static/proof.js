// RFC 9162 §2.1.3.2 in the browser: from the leaf's bytes to the signed root, and the signature.
const box = document.getElementById("proof").dataset;
const text = (id) => document.getElementById(id).textContent;
const status = document.getElementById("status");
const bytes = (base64) => Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
const same = (one, other) => one.length === other.length && one.every((value, at) => value === other[at]);

async function sha256(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, one) => sum + one.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

async function root(index, size, leaf, hashes) {
  let first = index, last = size - 1, result = leaf;
  for (const sibling of hashes) {
    if (last === 0) throw new Error("the proof is too long");
    if (first % 2 === 1 || first === last) {
      result = await sha256(Uint8Array.of(1), sibling, result);
      while (first % 2 === 0 && first !== 0) { first = Math.floor(first / 2); last = Math.floor(last / 2); }
    } else {
      result = await sha256(Uint8Array.of(1), result, sibling);
    }
    first = Math.floor(first / 2);
    last = Math.floor(last / 2);
  }
  if (last !== 0) throw new Error("the proof is too short");
  return result;
}

async function signed(note, vkey) {
  const [body, marks] = note.split("\n\n");
  const key = bytes(vkey.split("+").slice(2).join("+"));
  if (key[0] !== 1 || key.length !== 33) throw new Error("the log's key is of another kind");
  const name = vkey.split("+")[0];
  const line = marks.split("\n").find((one) => one.startsWith(`\u2014 ${name} `));
  if (!line) throw new Error("the tree head is not signed by the log");
  const mark = bytes(line.split(" ")[2]);
  const publicKey = await crypto.subtle.importKey("raw", key.slice(1), "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", publicKey, mark.slice(4), new TextEncoder().encode(`${body}\n`));
}

try {
  const leaf = await sha256(Uint8Array.of(0), bytes(box.entry));
  const hashes = box.hashes ? box.hashes.split(" ").map(bytes) : [];
  const found = await root(Number(box.index), Number(box.size), leaf, hashes);
  const head = text("checkpoint").split("\n");
  if (head[1] !== box.size || !same(found, bytes(head[2]))) throw new Error("the root is another one");
  if (!(await signed(text("checkpoint"), text("key")))) throw new Error("the log's signature is false");
  status.textContent = "The leaf is in the signed tree: hashes and signature hold.";
  status.className = "told";
} catch (error) {
  status.textContent = `This proof does not hold: ${error.message}`;
  status.className = "trouble";
}
