import {
  assertion, byId, call, challengeOf, KEY_WAITS, say, toBase64Url, waiting, why,
} from "./ceremony.js";

const { id, keys } = byId("request").dataset;
const mine = keys.split(" ");

// What is signed is what this page shows: fetched again, hashed by the browser itself.
async function asked() {
  const one = await call(`/api/v1/grants/${id}`);
  if (one.canonical !== byId("canonical").textContent) throw new Error("the page is old: load it again");
  return one;
}

async function act(text, work) {
  try {
    const said = await waiting(text, async () => work(await asked()));
    location.assign(`/approvals/${id}?told=${encodeURIComponent(said)}`);
  } catch (error) {
    say(`Not done: ${why(error)}`);
  }
}

challengeOf("approve", byId("canonical").textContent).then((challenge) => {
  if (byId("challenge")) byId("challenge").textContent = toBase64Url(challenge);
});

// The demo only: somebody else's key signs.
byId("second")?.addEventListener("click", () => act("A colleague approves it…", async () => {
  return (await call("/login/demo/second", { request: id })).said;
}));

byId("approve")?.addEventListener("click", () => act(KEY_WAITS, async (one) => {
  const challenge = await challengeOf("approve", one.canonical);
  const proof = await assertion(challenge, one.rp_id, mine);
  await call(`/api/v1/grants/${id}/approve`, { proof });
  return "Your approval is recorded.";
}));

byId("deny")?.addEventListener("click", () => act(KEY_WAITS, async (one) => {
  const text = byId("reason").value.trim();
  if (!text) throw new Error("give a reason");
  // RFC 8785: members in order, strings as JSON.stringify writes them.
  const canonical = `{"request":${JSON.stringify(one.sha256)},"text":${JSON.stringify(text)}}`;
  const challenge = await challengeOf("deny", canonical);
  const proof = await assertion(challenge, one.rp_id, mine);
  await call(`/api/v1/grants/${id}/note/deny`, { text, proof });
  return "The request is denied.";
}));
