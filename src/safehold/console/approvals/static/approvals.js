import {
  assertion, byId, call, challengeOf, KEY_WAITS, say, toBase64Url, waiting, why,
} from "./ceremony.js";

let shown = null;

function row(label, text) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = label;
  const cell = document.createElement("td");
  cell.textContent = text;
  line.append(head, cell);
  return line;
}

async function list() {
  const requests = await call("/api/requests");
  byId("requests").replaceChildren(...requests.map((one) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `#${one.sha256}`;
    link.textContent = `${one.operation}: ${one.purpose} (${one.approvals} approved)`;
    item.append(link);
    return item;
  }));
  if (!requests.length) say("No open requests.");
}

async function show(id) {
  shown = null;
  const one = await call(`/api/requests/${encodeURIComponent(id)}`);
  const challenge = await challengeOf("approve", one.canonical);
  byId("words").replaceChildren(...one.words.map(([label, text]) => row(label, text)));
  byId("approvers").textContent = one.approved_by.join(", ") || "nobody";
  byId("state").textContent = one.status;
  byId("canonical").textContent = one.canonical;
  byId("challenge").textContent = toBase64Url(challenge);
  shown = { ...one, challenge };
}

async function route() {
  const id = location.hash.slice(1);
  byId("list").hidden = Boolean(id);
  byId("one").hidden = !id;
  try {
    await (id ? show(id) : list());
  } catch (error) {
    say(why(error));
  }
}

async function act(work) {
  if (!shown) return;
  try {
    say(await waiting(KEY_WAITS, async () => {
      const said = await work(shown);
      await show(shown.sha256);
      return said;
    }));
  } catch (error) {
    say(`Not done: ${why(error)}`);
  }
}

byId("approve").addEventListener("click", () => act(async (one) => {
  const proof = await assertion(one.challenge, one.rp_id, one.credentials);
  say("Signed. Waiting for the server to record it.");
  const answer = await call(`/api/requests/${one.sha256}/approve`, { proof });
  return `Approved. ${answer.status}`;
}));

byId("deny").addEventListener("click", () => act(async (one) => {
  const text = byId("reason").value.trim();
  if (!text) throw new Error("give a reason");
  // RFC 8785: members in order, strings as JSON.stringify writes them.
  const canonical = `{"request":${JSON.stringify(one.sha256)},"text":${JSON.stringify(text)}}`;
  const challenge = await challengeOf("deny", canonical);
  const proof = await assertion(challenge, one.rp_id, one.credentials);
  say("Signed. Waiting for the server to record it.");
  await call(`/api/requests/${one.sha256}/deny`, { text, proof });
  return "Denied.";
}));

addEventListener("hashchange", () => { say(""); route(); });
route();
