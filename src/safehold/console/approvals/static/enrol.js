import {
  assertion, byId, call, challengeOf, creation, KEY_WAITS, say, waiting, why,
} from "./ceremony.js";

async function enrol() {
  const person = byId("person").value.trim();
  const options = await call("/api/enrolment/options", { person });
  const response = await creation(options);
  const made = await call("/api/enrolment", { challenge: options.challenge, response });
  // The new key signs its own enrolment: this person, this enclave, nothing else.
  say("Made. Use it once more: it signs its own enrolment.");
  const challenge = await challengeOf("hold-key", made.canonical);
  const proof = await assertion(challenge, made.rp_id, [made.change.key.credential_id]);
  const offer = await call("/api/enrolment/offer", { change: made.change, proof });
  byId("passkey").textContent = JSON.stringify(offer, null, 2);
  byId("done").hidden = false;
  // In the demo colleagues enrol it at once; elsewhere people ask for that.
  const told = byId("done").dataset.demo ? await call("/login/demo/passkey", offer) : null;
  return told ? told.said : "Created and signed.";
}

byId("create").addEventListener("click", async () => {
  byId("done").hidden = true;
  try {
    say(await waiting(KEY_WAITS, enrol));
  } catch (error) {
    say(`Not done: ${why(error)}`);
  }
});
