module.exports = { mode: "production", entry: "./app.js" };
