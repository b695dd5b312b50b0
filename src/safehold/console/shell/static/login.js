import { assertion, byId, call, challengeOf, say, waiting, why } from "./ceremony.js";

async function login() {
  const options = await call("/login/options", { name: byId("name").value });
  const challenge = await challengeOf("login", JSON.stringify({ nonce: options.nonce }));
  const { type, ...proof } = await assertion(challenge, options.rp_id, options.credentials);
  await call("/login/passkey", { nonce: options.nonce, ...proof });
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await waiting("Your browser asks for your passkey…", login);
    location.assign(byId("login").dataset.next);
  } catch (error) {
    say(`Not logged in: ${why(error)}`);
  }
});
