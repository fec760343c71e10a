from jaf_memory_core import (
    MemoryError, MemoryConnectionError,
    MemoryNotFoundError, MemoryStorageError,
    Success, Failure
)

try:
    result = await provider.store_messages(conversation_id, messages)

    # Check result type (functional error handling)
    if isinstance(result, Success):
        print("Messages stored successfully")
    elif isinstance(result, Failure):
        print(f"Storage failed: {result.error}")

except MemoryConnectionError as e:
    print(f"Connection failed to {e.provider}: {e}")
    # Implement fallback or retry logic

except MemoryStorageError as e:
    print(f"Storage operation '{e.operation}' failed: {e}")
    # Log error and potentially use fallback storage

except MemoryNotFoundError as e:
    print(f"Conversation {e.conversation_id} not found")
    # Handle missing conversation scenario
