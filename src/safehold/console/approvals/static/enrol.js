import { byId, call, creation, say } from "./ceremony.js";

byId("create").addEventListener("click", async () => {
  try {
    const person = byId("person").value.trim();
    const options = await call("/api/enrolment/options", { person });
    const response = await creation(options);
    const passkey = await call("/api/enrolment", { challenge: options.challenge, response });
    byId("passkey").textContent = JSON.stringify(passkey, null, 2);
    byId("done").hidden = false;
    // In the demo colleagues enrol it at once; elsewhere people ask for that.
    const told = byId("done").dataset.demo ? await call("/login/demo/passkey", passkey) : null;
    say(told ? told.said : "Created.");
  } catch (error) {
    say(`Not done: ${error.message}`);
  }
});
