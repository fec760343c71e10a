from jaf_memory_bridges.jaf import run, RunState, RunConfig, Message, Agent
from jaf_memory_bridges.jaf import create_memory_provider_from_env, MemoryConfig

# Create memory provider
memory_provider = await create_memory_provider_from_env()
memory_config = MemoryConfig(
    provider=memory_provider,
    auto_store=True,
    max_messages=100
)

# Create agent
agent = Agent(
    name="ChatBot",
    instructions=lambda state: "You are a helpful assistant.",
    tools=[]
)

# Run with memory
initial_state = RunState(
    messages=[Message(role="user", content="Hello!")],
    current_agent_name="ChatBot",
    context={"user_id": "user-123"}
)

config = RunConfig(
    agent_registry={"ChatBot": agent},
    model_provider=your_model_provider,
    memory=memory_config,
    conversation_id="user-123-session-1"  # Important: specify conversation ID
)

result = await run(initial_state, config)
