import { assertion, byId, call, challengeOf, say } from "./ceremony.js";

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    say("Your browser asks for your passkey…");
    const options = await call("/login/options", { name: byId("name").value });
    const challenge = await challengeOf("login", JSON.stringify({ nonce: options.nonce }));
    const { type, ...proof } = await assertion(challenge, options.rp_id, options.credentials);
    await call("/login/passkey", { nonce: options.nonce, ...proof });
    location.assign(byId("login").dataset.next);
  } catch (error) {
    say(`Not logged in: ${error.message}`);
  }
});
